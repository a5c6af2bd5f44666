"""The real Envoy asks over mTLS: listed or not, while certificates and authorities change, while connections age."""

import asyncio
import contextlib
import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.edge.addresses import TcpAddress
from countersign.edge.grpc_server import GrpcServer
from countersign.edge.server import Authorizer
from countersign.edge.tls.handshakes import Handshakes
from countersign.mesh.certificates import write_certificates
from countersign.mesh.client import Door, send
from countersign.mesh.envoy import Envoy
from countersign.mesh.process import wait_until
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream

from tests.cli.serving import Serve, free_port
from tests.edge.probing import ask as ask_probe
from tests.edge.serving import Serving, reason, snapshot
from tests.edge.tls.pki import (
    ALLOWED,
    ENVOY,
    OTHER,
    client_of,
    flags,
    key_pem,
    new_authority,
    served,
    server_of,
    swap,
)
from tests.edge.tls.test_callers import ask
from tests.envoy.storm import Load, statuses
from tests.support.certificates import Issued

pytestmark = pytest.mark.envoy

CONFIGURATION: Final = Path(__file__).parents[2] / "envoy" / "httpbin.yaml"
PAGE: Final = Path(__file__).parents[2] / "docs" / "tls.md"
ANY: Final = ("127.0.0.1", 0)
RATE: Final = 100  # requests a second
POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: good, namespace: apps}
spec:
  rules: [{when: [{key: "request.headers[authorization]", values: [Bearer good]}]}]
"""


def over_mtls(document: Any, *, fail_open: bool = False) -> None:
    """Ask Countersign by the cluster of the page."""
    _, snippet = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    document["static_resources"]["clusters"][1] = yaml.safe_load(snippet)
    for chain in document["static_resources"]["listeners"][0]["filter_chains"]:
        for filter_ in chain["filters"][0]["typed_config"]["http_filters"]:
            if "failure_mode_allow" in filter_["typed_config"]:
                filter_["typed_config"]["failure_mode_allow"] = fail_open


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """An Envoy that asks over mTLS."""

    envoy: Envoy
    directory: Path

    def get(self, bearer: str = "good") -> tuple[int, str]:
        """The status of a request, and the reason in the access log."""
        number = str(uuid.uuid4())
        door = Door(name="sidecar", port=self.envoy.port("inbound"), certificates=self.directory / "certs" / "sleep")
        answer = send(door, "GET", "/", (("x-request-id", number), ("authorization", f"Bearer {bearer}")))
        entry = self.envoy.access_log(answer.headers.get("x-request-id", number))
        return answer.status, (entry["ext_authz"] or {}).get("reason", "")

    def counted(self, name: str) -> int:
        """A counter of the cluster of Countersign."""
        text = self.envoy._ask(f"/stats?format=json&filter=cluster.countersign.{name}$") or "{}"
        return int(next(each["value"] for each in json.loads(text)["stats"] if "value" in each))

    def load(self, *events: tuple[float, Callable[[], None]], seconds: float = 3.0) -> dict[int, int]:
        """How many answers of each status, with events at so many seconds."""

        async def run() -> dict[int, int]:
            load = Load(self.envoy.port("inbound"))
            for at, event in events:
                asyncio.get_running_loop().call_later(at, event)
            samples = await load.run(lambda: "good", RATE, int(seconds * RATE))
            await load.close()
            return statuses(samples)

        return asyncio.run(run())


@contextlib.contextmanager
def sidecar(
    directory: Path, port: int, client: Issued, trusted: Issued, *, fail_open: bool = False
) -> Iterator[Sidecar]:
    own = directory / "envoy"
    for each in (own, directory / "certs"):
        each.mkdir(exist_ok=True)
    write_certificates(directory / "certs", dt.datetime.now(dt.UTC))
    (own / "tls.crt").write_text(client.pem)
    (own / "tls.key").write_bytes(key_pem(client))
    (own / "ca.crt").write_text(trusted.pem)
    document = yaml.safe_load(CONFIGURATION.read_text())
    over_mtls(document, fail_open=fail_open)
    changed = directory / "httpbin.yaml"
    changed.write_text(yaml.safe_dump(document))
    with contextlib.ExitStack() as parts:
        application = parts.enter_context(upstream("127.0.0.1", 0))
        places = Places(
            addresses={
                "127.0.0.1:9901": ANY,
                "0.0.0.0:15006": ANY,
                "upstream:8080": ("127.0.0.1", application.port),
                "countersign:9191": ("127.0.0.1", port),
            },
            paths={"/etc/envoy": own, "/run/mesh/certs": directory / "certs"},
        )
        envoy = parts.enter_context(Envoy(changed, places, directory))
        envoy.wait_ready()
        yield Sidecar(envoy=envoy, directory=directory)


@contextlib.contextmanager
def countersign(directory: Path, server: Issued, clients: Issued, *more: str) -> Iterator[tuple[Serve, int]]:
    """`countersign serve` with files that can be swapped in ``tls``."""
    policies, files, port = directory / "policies", directory / "tls", free_port()
    for each in (policies, files):
        each.mkdir()
    (policies / "p.yaml").write_text(POLICY)
    swap(files, "v1", server, clients)
    listen = ("--listen", f"127.0.0.1:{port}")
    with Serve(directory, policies, "--namespace", "apps", *listen, *flags(files), *more) as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        yield serve, port


def test_a_listed_envoy_is_answered_and_one_that_is_not_lets_nothing_through(tmp_path: Path) -> None:
    """Not even one that lets everything through when its authorizer fails: it was answered."""
    ca = new_authority()
    with countersign(tmp_path, server_of(ca), ca) as (serve, port):
        with sidecar(tmp_path, port, client_of(ca, ENVOY), ca) as listed:
            assert listed.get() == (200, "allow-rule-matched")
            assert listed.get("bad") == (403, "no-allow-rule-matched")
        with sidecar(tmp_path, port, client_of(ca, OTHER), ca, fail_open=True) as other:
            assert other.get() == (503, "caller-not-allowed")
        serve.wait_for_log(f"a caller is refused every check: {OTHER} is none of those whom --tls-allow-client lists")


def test_an_envoy_of_another_authority_gets_no_answer(tmp_path: Path) -> None:
    ca, other = new_authority(), new_authority("Other CA")
    with (
        countersign(tmp_path, server_of(ca), ca) as (_, port),
        sidecar(tmp_path, port, client_of(other, ENVOY), ca) as envoy,
    ):
        assert envoy.get() == (503, "")


def test_certificate_and_client_ca_change_under_load_and_no_call_fails(tmp_path: Path) -> None:
    """The connection that is open stays as it is; the next ones want the new authority, on both sides."""
    old, new = new_authority("Old CA"), new_authority("New CA")
    with countersign(tmp_path, server_of(old), old) as (serve, port):
        with sidecar(tmp_path, port, client_of(old, ENVOY), old) as envoy:
            assert envoy.get() == (200, "allow-rule-matched")
            before = envoy.counted("upstream_cx_total")
            after = envoy.load((1.0, lambda: swap(tmp_path / "tls", "v2", server_of(new), new)))
            wait_until("taking it", lambda: serve.log.count("TLS certificate of") == 2 or None, within=10)
            rest = envoy.load(seconds=1.0)
            print(f"rotation under load: {after}, then {rest}, connections {before}")  # noqa: T201

            assert set(after) == set(rest) == {200}
            assert envoy.counted("upstream_cx_total") == before
            assert envoy.counted("upstream_cx_destroy") == 0
        address = TcpAddress("127.0.0.1", port)
        assert reason(ask(address, client_of(new, ENVOY), new)) == "no-allow-rule-matched"
        with sidecar(tmp_path, port, client_of(old, ENVOY), new) as late:
            assert late.get() == (503, "")
        with sidecar(tmp_path, port, client_of(new, ENVOY), new) as renewed:
            assert renewed.get() == (200, "allow-rule-matched")


def test_a_broken_new_pair_changes_nothing_and_is_said(tmp_path: Path) -> None:
    ca = new_authority()
    with (
        countersign(tmp_path, server_of(ca), ca) as (serve, port),
        sidecar(tmp_path, port, client_of(ca, ENVOY), ca) as envoy,
    ):
        (tmp_path / "tls" / "..v1" / "tls.key").write_bytes(key_pem(server_of(ca)))
        serve.wait_for_log("TLS certificate not loaded, the one until")

        assert envoy.get() == (200, "allow-rule-matched")
        assert serve.ready() == "ok"
        said = ask_probe(serve.port, "/readyz?verbose")[1]
        assert "[!]TLS certificate: a new one is refused" in said
        assert "the key is not the certificate's" in said
        metrics = ask_probe(serve.port, "/metrics")[1]
        assert "countersign_tls_certificate_refused 1.0" in metrics
        assert re.search(r"^countersign_tls_certificate_expiry_timestamp_seconds 1\.\d+e\+09$", metrics, re.MULTILINE)


def test_workers_serve_over_mtls_and_take_new_certificates(tmp_path: Path) -> None:
    old, new = new_authority("Old CA"), new_authority("New CA")
    with countersign(tmp_path, server_of(old), old, "--workers", "2") as (serve, port):
        addresses = [TcpAddress("127.0.0.1", port + number) for number in range(2)]
        assert [reason(ask(each, client_of(old, ENVOY), old)) for each in addresses] == ["no-allow-rule-matched"] * 2
        assert [reason(ask(each, client_of(old, OTHER), old)) for each in addresses] == ["caller-not-allowed"] * 2
        swap(tmp_path / "tls", "v2", server_of(new), new)

        def taken() -> bool | None:
            try:
                for each in addresses:
                    ask(each, client_of(new, ENVOY), new)
            except Exception:  # noqa: BLE001 (not yet)
                return None
            return True

        wait_until("both workers", taken, within=20, child=serve.child)


def test_connections_that_are_too_old_are_replaced_and_no_call_fails(tmp_path: Path) -> None:
    """So that an authority that was taken away does not count for ever on connections that never end."""
    ca, port = new_authority(), free_port()
    handshakes = Handshakes(ALLOWED)
    handshakes.put(served(server_of(ca), ca))
    current = snapshot(POLICY)

    def make(authorizer: Authorizer, _: Sequence[Any]) -> GrpcServer:
        return GrpcServer(authorizer, [TcpAddress("127.0.0.1", port)], handshakes, max_age=0.5)

    with Serving(tmp_path, lambda: current, make=make), sidecar(tmp_path, port, client_of(ca, ENVOY), ca) as envoy:
        before = envoy.counted("upstream_cx_total")
        after = envoy.load(seconds=3.0)
        connections = envoy.counted("upstream_cx_total") - before
        print(f"connections of half a second: {after}, {connections} of them")  # noqa: T201

        assert set(after) == {200}
        assert connections >= 3
