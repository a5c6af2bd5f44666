"""TLS by flags, variables and the file: all that is needed or nothing, and plaintext only where nobody else can be."""

from pathlib import Path

import pytest
from countersign.cli import serve
from countersign.cli.config.tls_flags import tls_of
from countersign.core.spiffe import SpiffeId
from countersign.edge.addresses import UnixAddress
from countersign.edge.tls.settings import TlsFiles, TlsSettings, WorkloadApi
from countersign.settings import Settings, SettingsError

from tests.cli.config.test_config import layer

ID = "spiffe://cluster.local/ns/apps/sa/envoy"
CALLERS = frozenset({SpiffeId.parse(ID)})
FILES = ("--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a")
ALLOW = ("--tls-allow-client", ID)
SOCKET = ("--tls-spiffe-socket", "unix:/agent.sock")


def tls(*words: str, file: str = "", **environment: str) -> TlsSettings | None:
    spiffe = {name: text for name, text in environment.items() if name.startswith("SPIFFE")}
    rest = {name: text for name, text in environment.items() if name not in spiffe}
    return tls_of(layer(*words, file=file, **rest).arguments, spiffe)


def settings(*words: str) -> Settings:
    return serve._settings(layer(*words))


def test_without_any_of_them_there_is_no_tls() -> None:
    assert tls() is None
    assert tls(SPIFFE_ENDPOINT_SOCKET="unix:/agent.sock") is None  # it is there for every process of a machine


def test_three_files_and_whoever_may_call_are_tls() -> None:
    files = TlsFiles(certificate=Path("c"), key=Path("k"), client_ca=Path("a"))

    assert tls(*FILES, *ALLOW) == TlsSettings(source=files, callers=CALLERS)
    assert tls(TLS_CERT="c", TLS_KEY="k", TLS_CLIENT_CA="a", TLS_ALLOW_CLIENT=ID) == tls(*FILES, *ALLOW)


def test_the_file_says_the_same_with_paths_from_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "countersign.yaml"
    file.write_text(f"tls: {{cert: c, key: k, clientCa: a, allowClients: [{ID}]}}\n")
    found = tls(file=str(file))

    assert found is not None
    assert found.source == TlsFiles(certificate=tmp_path / "c", key=tmp_path / "k", client_ca=tmp_path / "a")


def test_a_workload_api_is_named_by_the_flag_or_by_spiffes_own_variable() -> None:
    wanted = TlsSettings(source=WorkloadApi(UnixAddress("/agent.sock")), callers=CALLERS)

    assert tls(*SOCKET, *ALLOW) == wanted
    assert tls("--tls-spiffe-socket", "unix:///agent.sock", *ALLOW) == wanted
    assert tls(*ALLOW, SPIFFE_ENDPOINT_SOCKET="unix:///agent.sock") == wanted
    assert tls(*FILES, *ALLOW, SPIFFE_ENDPOINT_SOCKET="unix:///agent.sock") == tls(*FILES, *ALLOW)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (FILES, "--tls-cert without --tls-allow-client: everybody with a certificate"),
        (SOCKET, "--tls-spiffe-socket without --tls-allow-client"),
        (ALLOW, "--tls-allow-client without certificates: set --tls-cert, --tls-key and --tls-client-ca, or"),
        ((*FILES[:2], *ALLOW), "--tls-cert without --tls-key and --tls-client-ca: mTLS wants all three"),
        ((*FILES[:4], *ALLOW), "--tls-cert without --tls-client-ca"),
        ((*FILES[4:], *ALLOW), "--tls-client-ca without --tls-cert and --tls-key"),
        ((*FILES, *SOCKET, *ALLOW), "--tls-cert and --tls-spiffe-socket: certificates come from one of them"),
        ((*FILES[2:4], *SOCKET, *ALLOW), "--tls-key and --tls-spiffe-socket"),
    ],
)
def test_half_of_what_is_needed_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        tls(*words)


def test_a_variable_of_spiffe_that_names_no_unix_socket_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"SPIFFE_ENDPOINT_SOCKET: `tcp://127\.0\.0\.1:80` is neither"):
        tls(*ALLOW, SPIFFE_ENDPOINT_SOCKET="tcp://127.0.0.1:80")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("TLS_ALLOW_CLIENT", "spiffe://TD/a", "`spiffe://TD/a` is no SPIFFE ID: not of the form"),
        ("TLS_ALLOW_CLIENT", "spiffe://td", "`spiffe://td` is a trust domain's SPIFFE ID, not a workload's"),
        ("TLS_ALLOW_CLIENT", "spiffe://td/*", "is no SPIFFE ID"),
        ("TLS_SPIFFE_SOCKET", "agent.sock", "is neither unix:/path nor host:port"),
        ("TLS_SPIFFE_SOCKET", "127.0.0.1:8081", "is no unix socket, such as"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        layer(**{name: text})

    assert str(error.value).startswith(f"COUNTERSIGN_{name}: ")
    assert message in str(error.value)


EXPOSED = (
    "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1", "[::ffff:0.0.0.0]:1",
    "countersign.mesh:1", "ip6-localhost:1", "0:1", "2130706433:1", "127.1:1", "127.0.0.1.example:1", "LOCALHOST:1",
)  # fmt: skip
LOCAL = ("127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/run/a.sock")


@pytest.mark.parametrize("address", EXPOSED)
def test_plaintext_in_other_machines_reach_wants_a_flag_that_says_so(address: str) -> None:
    with pytest.raises(SettingsError, match="plaintext beyond this machine shows tokens"):
        settings("--listen", address)

    assert settings("--listen", address, "--insecure-listen").tls is None
    assert settings("--listen", address, *FILES, *ALLOW).tls is not None


@pytest.mark.parametrize("address", LOCAL)
def test_plaintext_that_stays_on_the_machine_wants_none(address: str) -> None:
    assert settings("--listen", address).tls is None


def test_one_exposed_address_of_several_is_enough_to_refuse() -> None:
    with pytest.raises(SettingsError, match=r"--listen 0\.0\.0\.0:2"):
        settings("--listen", "unix:/run/a.sock", "--listen", "0.0.0.0:2")


def test_the_native_transport_has_no_tls() -> None:
    with pytest.raises(SettingsError, match="--transport native: pygrpc-native has no TLS; say auto or grpcio"):
        settings(*FILES, *ALLOW, "--transport", "native")

    assert settings(*FILES, *ALLOW, "--transport", "grpcio").tls == settings(*FILES, *ALLOW).tls
