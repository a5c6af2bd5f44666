"""The settings of `serve`, wherever they come from: one reader for each, and errors that say where."""

import argparse
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from countersign.cli import serve
from countersign.cli.config.file import ConfigError, ConfigFile, parse_config, read_config
from countersign.cli.config.flags import Kind, Setting
from countersign.cli.config.key_flags import keys_of
from countersign.cli.config.layers import Layered, layered
from countersign.core.spiffe import SpiffeId
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.edge.keys.access import Access, IssuerKeys
from countersign.edge.transport import Transport
from countersign.record.settings import LogFile, Mode, Sync
from countersign.settings import SettingsError


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    serve.add_arguments(made)
    return made


def settings() -> dict[str, Setting]:
    found: dict[str, Setting] = parser().parse_args([]).settings
    return found


def layer(*words: str, file: str = "", **environment: str) -> Layered:
    arguments = parser().parse_args([*words, *(["--config", file] if file else [])])
    return layered(arguments, {f"COUNTERSIGN_{name}": text for name, text in environment.items()})


def parse(text: str) -> ConfigFile:
    return parse_config(text.encode(), "dir/countersign.yaml", settings().values())


def value(text: str, name: str) -> Any:
    return parse(text).values[name].value


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse(text)
    return [f"{problem.position.line}:{problem.position.column} {problem.message}" for problem in error.value.problems]


EVERY_FIELD = """\
listen: [unix:/a.sock, "127.0.0.1:9000"]
insecureListen: true
policies: [policies, /absolute]
trustDomain: td
trustDomainAliases: [old, older]
rootNamespace: root
posture: istio
namespace: apps
labels: {app: httpbin, v: "1"}
peer: xfcc
xfccMode: sanitize_set
xfccTrustedHops: 1
xfccTrustedProxies: [spiffe://td/gateway]
remoteIpHops: 2
remoteIpHeader: x-real
transport: grpcio
tokenCache: 5
logLevel: debug
probes: 127.0.0.1:1
admin: 0.0.0.0:2
insecureAdmin: true
tracing: otlp
keys:
  cacheDirectory: copies
  maxStale: 2d
  refresh: 5m
  cooldown: 10s
  blockedAddresses: [10.0.0.0/8, "fd00::/8"]
tls:
  cert: tls.crt
  key: /etc/tls.key
  clientCa: ca.crt
  allowClients: [spiffe://td/a, spiffe://td/b]
  spiffeSocket: unix:/agent.sock
audit:
  log: file:decisions.jsonl
  mode: block
  sampleAllows: 0.1
  mask: [/input/token/sub, /input/source]
  chain: true
  signingKey: audit.key
  checkpointEvery: 100
  checkpointInterval: 1m
  sync: always
  queue: 10
  spool: spool
  spoolSize: 7
  caFile: ca.pem
  tokenFile: token
"""
EVERY_VALUE = {
    "audit_log": LogFile(Path("dir/decisions.jsonl")),
    "audit_mode": Mode.BLOCK,
    "audit_sample_allows": Decimal("0.1"),
    "audit_mask": ["/input/token/sub", "/input/source"],
    "audit_chain": True,
    "audit_signing_key": Path("dir/audit.key"),
    "audit_checkpoint_every": 100,
    "audit_checkpoint_interval": 60.0,
    "audit_sync": Sync.ALWAYS,
    "audit_queue": 10,
    "audit_spool": Path("dir/spool"),
    "audit_spool_size": 7,
    "audit_ca_file": Path("dir/ca.pem"),
    "audit_token_file": Path("dir/token"),
    "listen": [UnixAddress("/a.sock"), TcpAddress("127.0.0.1", 9000)],
    "insecure_listen": True,
    "policies": [Path("dir/policies"), Path("/absolute")],
    "trust_domain": "td",
    "trust_domain_alias": ["old", "older"],
    "root_namespace": "root",
    "posture": "istio",
    "namespace": "apps",
    "label": [("app", "httpbin"), ("v", "1")],
    "peer": "xfcc",
    "xfcc_mode": "sanitize_set",
    "xfcc_trusted_hops": 1,
    "xfcc_trusted_proxy": [SpiffeId.parse("spiffe://td/gateway")],
    "remote_ip_hops": 2,
    "remote_ip_header": "x-real",
    "transport": Transport.GRPCIO,
    "token_cache": 5,
    "log_level": "debug",
    "probes": TcpAddress("127.0.0.1", 1),
    "admin": TcpAddress("0.0.0.0", 2),
    "insecure_admin": True,
    "tracing": "otlp",
    "keys_cache_directory": Path("dir/copies"),
    "keys_max_stale": 172800,
    "keys_refresh": 300,
    "keys_cooldown": 10,
    "keys_blocked_address": [ip_network("10.0.0.0/8"), ip_network("fd00::/8")],
    "tls_cert": Path("dir/tls.crt"),
    "tls_key": Path("/etc/tls.key"),
    "tls_client_ca": Path("dir/ca.crt"),
    "tls_allow_client": [SpiffeId.parse("spiffe://td/a"), SpiffeId.parse("spiffe://td/b")],
    "tls_spiffe_socket": UnixAddress("/agent.sock"),
}


def test_every_flag_is_a_field_of_the_file() -> None:
    read = {name: found.value for name, found in parse(EVERY_FIELD).values.items()}

    assert read == EVERY_VALUE | {name: value for name, value in read.items() if name not in EVERY_VALUE}
    known = set(settings())
    assert set(EVERY_VALUE) <= known
    fields = {".".join(setting.path) for setting in settings().values()}
    assert len(fields) == len(known)


def test_every_flag_is_a_variable() -> None:
    texts = {
        "audit_log": "file:dir/decisions.jsonl",
        "audit_mask": "/input/token/sub,/input/source",
        "audit_chain": "true",
        "audit_checkpoint_interval": "1m",
        "listen": "unix:/a.sock,127.0.0.1:9000",
        "insecure_listen": "true",
        "insecure_admin": "true",
        "policies": "dir/policies,/absolute",
        "trust_domain_alias": "old,older",
        "label": "app=httpbin,v=1",
        "transport": "grpcio",
        "probes": "127.0.0.1:1",
        "keys_cache_directory": "dir/copies",
        "keys_max_stale": "2d",
        "keys_refresh": "5m",
        "keys_cooldown": "10s",
        "keys_blocked_address": "10.0.0.0/8,fd00::/8",
        "xfcc_trusted_proxy": "spiffe://td/gateway",
        "tls_allow_client": "spiffe://td/a,spiffe://td/b",
    }
    environment = {name.upper(): texts.get(name) or str(wanted) for name, wanted in EVERY_VALUE.items()}
    found = vars(layer(**environment).arguments)

    assert {name: found[name] for name in EVERY_VALUE} == EVERY_VALUE


def test_a_flag_wins_over_a_variable_that_over_the_file_and_that_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("trustDomain: file\nnamespace: file\nposture: istio\nlabels: {a: file}\n")
    found = layer(
        "--trust-domain", "flag", "--label", "a=flag", file=str(file),
        TRUST_DOMAIN="variable", NAMESPACE="variable", LABEL="a=variable",
    ).arguments  # fmt: skip

    assert (found.trust_domain, found.namespace, found.posture) == ("flag", "variable", "istio")
    assert (found.root_namespace, found.label) == ("istio-system", [("a", "flag")])  # replaced, not added to
    assert layer(CONFIG=str(file)).arguments.trust_domain == "file"


def test_an_empty_file_or_field_changes_nothing() -> None:
    for text in ("", "# nothing\n", "null", "trustDomain:\nissuers:\nkeys: {cooldown: null}\n"):
        assert parse(text) == ConfigFile(values={}, issuers=())


def test_a_variable_that_is_no_setting_is_left_alone() -> None:
    of_kubernetes = {
        name: "x"
        for service in ("", "WORKERS_", "TRUST_DOMAIN_", "KEYS_")
        for name in (
            *(f"{service}SERVICE_HOST", f"{service}SERVICE_PORT", f"{service}SERVICE_PORT_GRPC", f"{service}PORT"),
            *(f"{service}PORT_9191_TCP", f"{service}PORT_9191_TCP_PROTO", f"{service}PORT_9191_TCP_ADDR"),
        )
    }
    found = layer(DATA="x", CHART_VERSION="1", **of_kubernetes).arguments

    assert vars(found) == vars(layer().arguments)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TRUST_DOMIAN", "TRUST_DOMAIN"),
        ("POLCIES", "POLICIES"),
        ("TLS_ALLOW_CLIENTS", "TLS_ALLOW_CLIENT"),
        ("LABELS", "LABEL"),
        ("CONFG", "CONFIG"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"COUNTERSIGN_{name}: no such setting; did you mean COUNTERSIGN_{meant}\?"
    ):
        layer(**{name: "x"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("LISTEN", "here", "COUNTERSIGN_LISTEN: `here` is neither unix:/path nor host:port"),
        ("INSECURE_LISTEN", "yes", "COUNTERSIGN_INSECURE_LISTEN: `yes` is neither true nor false"),
        ("POSTURE", "lax", "COUNTERSIGN_POSTURE: `lax` is none of strict, istio"),
        ("POSTURE", "strickt", "COUNTERSIGN_POSTURE: `strickt` is none of strict, istio; did you mean `strict`?"),
        ("KEYS_COOLDOWN", "0s", "COUNTERSIGN_KEYS_COOLDOWN: `0s` is no time from 1s to 1h"),
        ("LABEL", "app", "COUNTERSIGN_LABEL: `app`: wants K=V"),
        ("TRANSPORT", "tcp", "COUNTERSIGN_TRANSPORT: `tcp` is none of"),
    ],
)
def test_a_variable_that_cannot_be_read_is_refused_by_name(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        layer(**{name: text})

    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trustDomian: x", "1:1 unknown field `trustDomian` in `configuration`"),
        ("trustDomain: X", "1:14 `trustDomain`: trust domain `X`: lower-case"),
        ("trustDomain: [x]", "1:14 `trustDomain` wants a string, found a list"),
        ("trustDomain: true", "1:14 `trustDomain` wants a string, found a boolean"),
        ("namespace: a\nnamespace: b", "2:1 `namespace` is here twice, first at line 1"),
        ("listen: here", "1:9 `listen`: `here` is neither unix:/path nor host:port"),
        ("listen:\n- unix:/a\n- here", "3:3 `listen`: `here` is neither"),
        ("insecureListen: 1", "1:17 `insecureListen` wants true or false, found a number"),
        ("labels: [app]", "1:9 `labels` wants an object, found a list"),
        ("labels: {app: 1}", "1:15 `labels.app` wants a string, found a number"),
        ("labels: {'': x}", "1:14 `labels.`: `=x`: wants K=V"),
        ("posture: lax", "1:10 `posture`: `lax` is none of strict, istio"),
        ("posture: 1", "1:10 `posture` wants a string, found a number"),
        ("xfccTrustedHops: -1", "1:18 `xfccTrustedHops`: `-1` is no number of hops"),
        ("keys: 5", "1:7 `keys` wants an object, found a number"),
        ("keys: {cach: x}", "1:8 unknown field `cach` in `keys`"),
        ("keys: {cooldown: 10}", "1:18 `keys.cooldown`: `10` is no time from 1s to 1h, such as 90s, 20m or 24h"),
        ("keys: {maxStale: 31d}", "1:18 `keys.maxStale`: `31d` is no time from 10m to 30d"),
        ("keys: {blockedAddresses: 10.0.0.1/8}", "1:26 `keys.blockedAddresses`: `10.0.0.1/8` is no address or range"),
        ("[]", "1:1 `configuration` wants an object, found a list"),
        ("a: [", "2:1 not YAML"),
        ("namespace: a\n---\nnamespace: b", "3:1 a second document"),
        ("issuers: x", "1:10 `issuers` wants a list, found a string"),
        ("issuers: [x]", "1:11 `issuers` wants an object, found a string"),
        ("issuers: [{caFile: x}]", "1:11 an entry of `issuers` with neither `issuer` nor `jwksUri`"),
        ("issuers: [{issuer: a, jwksUri: b}]", "1:11 an entry of `issuers` with both `issuer` and `jwksUri`"),
        ("issuers: [{issuer: a}]", "1:11 an entry of `issuers` that says nothing"),
        ("issuers: [{issuer: a, proxi: x}]", "1:23 unknown field `proxi` in `issuers`"),
        ("issuers: [{issuer: 5, caFile: x}]", "1:20 `issuer` wants a string, found a number"),
        ("issuers: [{issuer: a, caFile: ''}]", "1:31 `caFile` is empty"),
        ("issuers: [{issuer: a, jwksFile: x, caFile: y}]", "1:44 `caFile` beside `jwksFile`: nothing is fetched"),
        ("issuers: [{issuer: a, proxy: 'x:1'}]", "1:30 `proxy` is not an http or https URL"),
        ("issuers: [{issuer: a, proxy: 'http://u:p@x'}]", "1:30 `proxy` is not an http or https URL"),
        ("issuers: [{issuer: a, addresses: []}]", "1:34 `addresses` is empty"),
        ("issuers: [{issuer: a, addresses: [10.0.0.1/8]}]", "1:35 `10.0.0.1/8` is no address or range"),
        ("issuers: [{issuer: a, insecureHttp: maybe}]", "1:37 `insecureHttp` wants true or false"),
        ("issuers: [{issuer: a, required: 1}]", "1:33 `required` wants true or false"),
        ("issuers: [{jwksUri: 'file:///x', caFile: x}]", "1:21 `jwksUri` is not an http or https URL"),
        ("issuers: [{issuer: a, caFile: x}, {issuer: a, caFile: y}]", "1:35 `a` is here twice"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(text: str, problem: str) -> None:
    (found,) = problems(text)

    assert found.startswith(problem)


def test_all_that_is_wrong_is_said_at_once_with_a_caret_and_what_was_meant() -> None:
    with pytest.raises(ConfigError) as error:
        parse("trustDomian: a\nposture: strikt\n")

    assert str(error.value) == (
        "dir/countersign.yaml:1:1: error[CS0003]: unknown field `trustDomian` in `configuration`\n"
        "    trustDomian: a\n"
        "    ^\n"
        "    help: did you mean `trustDomain`?\n"
        "dir/countersign.yaml:2:10: error[IST0106]: `posture`: `strikt` is none of strict, istio\n"
        "    posture: strikt\n"
        "             ^\n"
        "    help: did you mean `strict`?"
    )


def test_what_is_no_text_or_too_much_of_it_is_refused() -> None:
    for octets in (b"\xff\xfe", b"#" * (1024 * 1024 + 1)):
        with pytest.raises(ConfigError, match=r"1:1: .* not UTF-8, or larger"):
            parse_config(octets, "c.yaml", settings().values())


def test_issuers_are_read_with_paths_from_where_the_file_is() -> None:
    found = parse(
        "issuers:\n"
        "- {issuer: https://a.test, jwksFile: a.json}\n"
        "- jwksUri: https://b.test/keys\n"
        "  caFile: /ca.pem\n"
        "  proxy: http://proxy:3128\n"
        "  addresses: [10.1.0.0/16, 10.2.3.4]\n"
        "  insecureHttp: true\n"
    ).issuers

    way = Access(
        ca_file=Path("/ca.pem"),
        proxy="http://proxy:3128",
        addresses=(ip_network("10.1.0.0/16"), ip_network("10.2.3.4")),
        insecure_http=True,
    )
    uri = "https://b.test/keys"
    assert found == (
        IssuerKeys(name="https://a.test", issuer="https://a.test", jwks_file=Path("dir/a.json")),
        IssuerKeys(name=uri, jwks_uri=uri, access=way),
    )


def test_what_is_blocked_is_blocked_on_every_way() -> None:
    arguments = layer("--keys-blocked-address", "10.0.0.0/8").arguments
    keys = keys_of(arguments, (IssuerKeys(name="a", issuer="a", access=Access(proxy="http://p")),))

    assert keys.access("a") == Access(proxy="http://p", blocked=(ip_network("10.0.0.0/8"),))
    assert keys.access("") == Access(blocked=(ip_network("10.0.0.0/8"),))


def test_without_settings_only_the_issuers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("keys: {cooldown: never}\nissuers: [{issuer: a, proxy: 'http://p'}]\n")

    (issuer,) = read_config(file, None).issuers
    assert issuer.access == Access(proxy="http://p")


def test_settings_know_their_kinds() -> None:
    kinds = {name: setting.kind for name, setting in settings().items()}

    assert (kinds["listen"], kinds["label"]) == (Kind.MANY, Kind.PAIRS)
    assert (kinds["insecure_listen"], kinds["posture"]) == (Kind.SWITCH, Kind.ONE)


def test_settings_that_do_not_go_together_are_refused_with_where_they_come_from(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("xfccTrustedHops: 1\nkeys: {refresh: 2h, maxStale: 3h}\n")

    with pytest.raises(SettingsError, match=r"only --peer xfcc looks.*; --xfcc-trusted-hops is from .*c\.yaml:1:18$"):
        serve._settings(layer(file=str(file)))
    with pytest.raises(SettingsError, match=r"--keys-refresh 7200 s: more than half of --keys-max-stale 10800 s"):
        serve._settings(layer("--peer", "xfcc", file=str(file)))


@pytest.mark.parametrize("text", ["off", '"off"', "'off'"])
def test_the_admin_api_is_off_though_yaml_takes_the_word_for_a_boolean(text: str) -> None:
    assert value(f"admin: {text}", "admin") == "off"


def test_off_is_a_word_only_where_a_flag_takes_it() -> None:
    assert problems("admin: no") == ["1:8 `admin` wants a string, found a boolean"]
    assert problems("probes: off") == ["1:9 `probes` wants a string, found a boolean"]


def test_the_admin_api_is_turned_off_by_each_way_there_is() -> None:
    ways = (layer("--admin", "off"), layer(ADMIN="off"))
    assert [serve._settings(way).admin for way in ways] == [None, None]
    assert serve._settings(layer()).admin == TcpAddress("127.0.0.1", 8181)
