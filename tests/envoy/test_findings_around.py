"""As `test_findings`, for what stands around the check: routes, other filter chains, the listener, the admin interface.

Sleep is allowed everything but /admin, and whatever has the header `x-role: guest`; batch is allowed nothing.
"""

import http.client
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.mesh.certificates import SLEEP
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look
from countersign.snapshot import Mesh

from tests.edge.serving import TIMEOUT, snapshot
from tests.envoy.sidecar import CONFIGURATION, Seen, changed, sidecars
from tests.envoy.test_findings import BY_HEADER, KEYS, NORMAL, POLICIES, ROUTE

pytestmark = pytest.mark.envoy

C: Final = EnvoyCode
NETWORK: Final = "type.googleapis.com/envoy.extensions.filters.network"
WARNED: Final = [(C.CHANGED_AFTERWARDS, "warning")]


def _findings(text: str, mesh: Mesh) -> list[tuple[str, str]]:
    expected = Expected(peer=mesh.peer.source, xfcc_mode=mesh.peer.xfcc_mode, posture=mesh.posture)
    return [(str(each.code), str(each.severity)) for each in look(text.encode(), "envoy.yaml", expected).problems]


def _header(seen: Seen, name: str) -> list[str]:
    return [value for each, value in seen.echo["headers"] if each.lower() == name]


def _host(seen: Seen) -> str:
    (host,) = _header(seen, "host")
    return host


def _role(seen: Seen) -> str:
    return ",".join(_header(seen, "x-role"))


def _path(seen: Seen) -> str:
    return str(seen.echo["path"])


def _added(value: str) -> str:
    return f"{ROUTE}\n{' ' * 26}request_headers_to_add: [{{header: {{key: x-role, value: '{value}'}}}}]"


def _route(field: str) -> str:
    return ROUTE.replace("}", f", {field}}}")


# What the route is, what it is in the twin, what the client says in `x-to`, and where the application sees that.
STEERED: Final = [
    (_route("path_rewrite: '%REQ(x-to)%'"), _route("path_rewrite: '%REQ(:path)%'"), "/admin", _path),
    (_route("host_rewrite_header: x-to"), _route("host_rewrite_literal: a.example"), "admin.example", _host),
    (_route("host_rewrite: '%REQ(x-to)%'"), _route("host_rewrite: '%REQ(:authority)%'"), "admin.example", _host),
    (_added("%REQ(x-to)%"), _added("%REQ(:method)%"), "guest", _role),
]


@pytest.mark.parametrize(("found", "fine", "said", "sees"), STEERED, ids=["path", "host header", "host", "header"])
def test_what_a_route_takes_from_a_clients_header_is_not_what_was_judged(
    tmp_path: Path, found: str, fine: str, said: str, sees: Callable[[Seen], str]
) -> None:
    mesh = Mesh(namespace="apps")
    texts = [changed((ROUTE, found)), changed((ROUTE, fine))]
    assert [_findings(text, mesh) for text in texts] == [WARNED, []]

    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, mesh)) as envoys:
        steered, twin = (each.ask("sleep", "/free", ("x-to", said)) for each in envoys)
        judged = envoys[0].get("sleep", "/admin"), envoys[0].get("sleep", "/free", ("x-role", "guest"))

    assert judged == ((403, "deny-rule-matched"),) * 2  # what was steered past the policies
    assert (steered.status, steered.reason) == (twin.status, twin.reason) == (200, "allow-rule-matched")
    assert sees(steered) == said
    assert sees(twin) != said


def test_a_route_may_send_to_whichever_cluster_a_client_names(tmp_path: Path) -> None:
    mesh = Mesh(namespace="apps")
    texts = [changed((ROUTE, "route: {cluster_header: x-to}")), changed()]
    assert [_findings(text, mesh) for text in texts] == [WARNED, []]

    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, mesh)) as (named, fixed):
        for envoy, elsewhere in ((named, 503), (fixed, 200)):
            assert envoy.get("sleep", "/free", ("x-to", "application")) == (200, "allow-rule-matched")
            assert envoy.get("sleep", "/free", ("x-to", "elsewhere")) == (elsewhere, "allow-rule-matched")


MATCHER: Final = """\
forward_client_cert_matcher:
                  matcher_list:
                    matchers:
                      - predicate:
                          single_predicate:
                            input:
                              name: a
                              typed_config:
                                "@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput
                                header_name: x-proxy
                            value_match: {exact: "yes"}
                        on_match:
                          action:
                            name: b
                            typed_config:
                              "@type": %s.http_connection_manager.v3.HttpConnectionManager.ForwardClientCertConfig
                              forward_client_cert_details: %s
                              set_current_client_cert_details: {uri: true}
                """


def test_a_matcher_may_forward_the_header_that_a_client_writes(tmp_path: Path) -> None:
    modes = ("ALWAYS_FORWARD_ONLY", "APPEND_FORWARD")
    at = "forward_client_cert_details: APPEND"
    texts = [changed((at, MATCHER % (NETWORK, mode) + at)) for mode in modes]
    assert [_findings(text, BY_HEADER) for text in texts] == [[(C.HEADER_FORWARDED, "error")], []]

    forged = (("x-forwarded-client-cert", f"URI={SLEEP.spiffe_id}"), ("x-proxy", "yes"))
    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, BY_HEADER)) as (forwarding, appending):
        assert forwarding.get("", "/free", *forged[:1]) == (403, "no-allow-rule-matched")
        assert forwarding.get("", "/free", *forged) == (200, "allow-rule-matched")
        assert appending.get("", "/free", *forged) == (403, "no-allow-rule-matched")


FROM_OFFICE: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: office, namespace: apps}
spec:
  rules:
  - from: [{source: {remoteIpBlocks: [203.0.113.7/32]}}]
"""


def test_without_its_own_peer_in_the_header_a_client_behind_a_proxy_writes_its_address(tmp_path: Path) -> None:
    mesh = Mesh(namespace="apps", remote_ip_hops=1)
    texts = [changed((NORMAL, f"{NORMAL}\n{' ' * 16}skip_xff_append: {said}")) for said in ("true", "false")]
    assert [_findings(text, mesh) for text in texts] == [[(C.ADDRESS_WRITTEN, "warning")], []]

    # As the trusted proxy hands it over: what the client wrote, and the client.
    forwarded, honest = ("x-forwarded-for", "203.0.113.7, 198.51.100.9"), ("x-forwarded-for", "203.0.113.7")
    with sidecars(tmp_path, texts, snapshot(FROM_OFFICE, {}, mesh)) as (skipping, appending):
        assert skipping.get("sleep", "/free", forwarded) == (200, "allow-rule-matched")
        assert appending.get("sleep", "/free", forwarded) == (403, "no-allow-rule-matched")
        assert appending.get("sleep", "/free", honest) == (200, "allow-rule-matched")


SLEEP_ALONE: Final = POLICIES.partition("---")[0] + f"---{POLICIES.rpartition('---')[2]}"


def _beside(filters: list[dict[str, Any]]) -> str:
    """The sidecar, and a listener with these network filters."""
    document = yaml.safe_load(CONFIGURATION)
    address = document["static_resources"]["listeners"][0]["address"]
    beside = {"name": "beside", "address": address, "filter_chains": [{"filters": filters}]}
    document["static_resources"]["listeners"].append(beside)
    return yaml.safe_dump(document)


def _network(name: str, kind: str, **fields: object) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{NETWORK}.{kind}", "stat_prefix": name, **fields}}


def _manager(*, checked: bool) -> dict[str, Any]:
    document = yaml.safe_load(CONFIGURATION)
    filter_ = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    if not checked:
        del filter_["typed_config"]["http_filters"][0]
        del filter_["typed_config"]["route_config"]["virtual_hosts"][0]["typed_per_filter_config"]
    return dict(filter_)


PROXY: Final = _network("proxy", "tcp_proxy.v3.TcpProxy", cluster="application")
CHECK: Final = _network(
    "check",
    "ext_authz.v3.ExtAuthz",
    transport_api_version="V3",
    grpc_service={"envoy_grpc": {"cluster_name": "countersign"}, "timeout": "0.25s"},
)


@pytest.mark.parametrize(
    ("found", "fine", "right"),
    [([PROXY], [CHECK, PROXY], None), ([_manager(checked=False)], [_manager(checked=True)], 403)],
    ids=["tcp_proxy", "manager"],
)
def test_what_stands_beside_the_check_passes_without_it(
    tmp_path: Path, found: list[dict[str, Any]], fine: list[dict[str, Any]], right: int | None
) -> None:
    mesh = Mesh(namespace="apps")
    texts = [_beside(filters) for filters in (found, fine)]
    assert [_findings(text, mesh) for text in texts] == [[(C.NOT_ASKED_HERE, "warning")], []]

    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, mesh)) as envoys:
        wrong, answer = (_plain(each.envoy.port("beside"), "/admin") for each in envoys)
    assert (wrong, answer) == (200, right)


def _plain(port: int, path: str) -> int | None:
    """The status, None if the connection is closed instead."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    with closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (ConnectionError, http.client.BadStatusLine):
            return None


def test_behind_a_check_of_the_connection_alone_no_token_is_looked_at(tmp_path: Path) -> None:
    mesh = Mesh(namespace="apps")
    document = yaml.safe_load(CONFIGURATION)
    for chain in document["static_resources"]["listeners"][0]["filter_chains"]:
        chain["filters"] = [CHECK, _manager(checked=False)]
    texts = [yaml.safe_dump(document), changed()]
    assert [set(_findings(text, mesh)) for text in texts] == [{(C.NOT_ASKED_HERE, "warning")}, set()]

    forged = ("authorization", "Bearer e30.e30.e30")
    with sidecars(tmp_path, texts, snapshot(SLEEP_ALONE, KEYS, mesh)) as (connections, requests):
        assert connections.ask("sleep", "/free", forged).status == 200
        assert requests.get("sleep", "/free", forged) == (401, "token-algorithm-refused")
        assert requests.get("sleep", "/free") == (200, "allow-rule-matched")


RUNTIME: Final = (
    ("clear_route_cache: false", "filter_enabled: {default_value: {numerator: 100}, runtime_key: check}"),
    ("static_resources:\n", "layered_runtime: {layers: [{name: admin, admin_layer: {}}]}\nstatic_resources:\n"),
)


def test_whoever_reaches_the_admin_interface_changes_what_envoy_does(tmp_path: Path) -> None:
    mesh = Mesh(namespace="apps")
    loopback = "address: 127.0.0.1, port_value: 9901"
    opened = changed((loopback, "address: 0.0.0.0, port_value: 9901"))
    assert _findings(opened, mesh) == [(C.ADMIN_OPEN, "warning")]
    assert _findings(changed(), mesh) == []

    with sidecars(tmp_path, [changed(*RUNTIME)], snapshot(POLICIES, {}, mesh)) as (envoy,):
        assert envoy.get("batch", "/free") == (403, "no-allow-rule-matched")
        admin = http.client.HTTPConnection((tmp_path / "sidecar-0.admin").read_text(), timeout=TIMEOUT)
        with closing(admin):
            admin.request("POST", "/runtime_modify?check=0")
            assert admin.getresponse().status == 200
        assert envoy.get("batch", "/free") == (200, "")
