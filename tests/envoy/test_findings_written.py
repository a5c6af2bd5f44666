"""As `test_findings`, for what the router writes after the check from what a client has said somewhere else."""

from pathlib import Path
from typing import Final

import pytest
import yaml
from countersign.core.identity import PeerSource
from countersign.mesh.certificates import SLEEP
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look
from countersign.snapshot import Mesh

from tests.edge.serving import snapshot
from tests.envoy.sidecar import CONFIGURATION, Seen, changed, sidecars
from tests.envoy.test_findings import BY_HEADER, FILTER, POLICIES, ROUTE, written_by_filter

pytestmark = pytest.mark.envoy

MESH: Final = Mesh(namespace="apps")
REGEX: Final = r'{pattern: {regex: "^/([^/]+)/.*$"}, substitution: "\\1"}'
XFCC: Final = "x-forwarded-client-cert"


def _added(value: str) -> str:
    return f"{ROUTE}\n{' ' * 26}request_headers_to_add: [{{header: {{key: x-role, value: '{value}'}}}}]"


def _route(field: str) -> str:
    return ROUTE.replace("}", f", {field}}}")


def _findings(text: str, expected: Expected | None = None) -> list[tuple[str, str]]:
    seen = look(text.encode(), "envoy.yaml", expected or Expected())
    return [(str(each.code), str(each.severity)) for each in seen.problems]


def _saw(seen: Seen, name: str) -> list[str]:
    return [value for each, value in seen.echo["headers"] if each.lower() == name]


# What the route is, what it is in the twin, the request, and what the application then sees.
CASES: Final = [
    (
        _route(f"host_rewrite_path_regex: {REGEX}"),
        _route("host_rewrite_literal: a.example"),
        ("/admin.example/x",),
        ("host", "admin.example"),
    ),
    (_added("%QUERY_PARAMS%"), _added("%PROTOCOL%"), ("/free?guest",), ("x-role", "guest")),
    (
        _added('%CEL(request.headers["x-to"])%'),
        _added("%PROTOCOL%"),
        ("/free", ("x-to", "guest")),
        ("x-role", "guest"),
    ),
    (
        _added('%COALESCE({"operators":[{"command":"REQ","param":"x-to"}]})%'),
        _added("%PROTOCOL%"),
        ("/free", ("x-to", "guest")),
        ("x-role", "guest"),
    ),
    (
        _added("%XFCC_VALUE(uri)%"),
        _added("%DOWNSTREAM_PEER_URI_SAN%"),
        ("/free", (XFCC, "URI=spiffe://a/b")),
        ("x-role", "spiffe://a/b"),
    ),
]


@pytest.mark.parametrize(
    ("found", "fine", "request_", "sees"), CASES, ids=["host by path", "query", "cel", "coalesce", "xfcc"]
)
def test_what_a_client_says_elsewhere_is_written_after_the_check(
    tmp_path: Path, found: str, fine: str, request_: tuple[str, *tuple[tuple[str, str], ...]], sees: tuple[str, str]
) -> None:
    texts = [changed((ROUTE, found)), changed((ROUTE, fine))]
    assert [_findings(text) for text in texts] == [[(EnvoyCode.CHANGED_AFTERWARDS, "warning")], []]

    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, MESH)) as envoys:
        steered, twin = (each.ask("sleep", *request_) for each in envoys)

    assert (steered.status, steered.reason) == (twin.status, twin.reason) == (200, "allow-rule-matched")
    assert _saw(steered, sees[0]) == [sees[1]]
    assert _saw(twin, sees[0]) != [sees[1]]


def _scoped(route: str) -> str:
    """The sidecar, whose routes are of the scope that the header `x-scope` names."""
    document = yaml.safe_load(CONFIGURATION.replace(ROUTE, route))
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = {
        "name": "s",
        "route_configuration": manager.pop("route_config"),
        "key": {"fragments": [{"string_key": "s"}]},
    }
    manager["scoped_routes"] = {
        "name": "scopes",
        "scope_key_builder": {"fragments": [{"header_value_extractor": {"name": "x-scope", "index": 0}}]},
        "scoped_route_configurations_list": {"scoped_route_configurations": [routes]},
    }
    return yaml.safe_dump(document)


def test_routes_of_a_scope_are_looked_at_too(tmp_path: Path) -> None:
    texts = [_scoped(_route("host_rewrite_header: x-to")), _scoped(_route("host_rewrite_literal: a.example"))]
    assert [_findings(text) for text in texts] == [[(EnvoyCode.CHANGED_AFTERWARDS, "warning")], []]

    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, MESH)) as envoys:
        steered, twin = (each.ask("sleep", "/free", ("x-scope", "s"), ("x-to", "admin.example")) for each in envoys)

    assert (steered.reason, twin.reason) == ("allow-rule-matched", "allow-rule-matched")
    assert (_saw(steered, "host"), _saw(twin, "host")) == (["admin.example"], ["a.example"])


def test_a_filter_before_the_check_writes_who_the_peer_is(tmp_path: Path) -> None:
    written = {"header": {"key": XFCC, "value": "%REQ(x-to)%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    writer, other = (
        written_by_filter({"mutations": {"request_mutations": [mutation]}})
        for mutation in ({"append": written}, {"remove": XFCC})
    )
    texts = [changed((FILTER, writer + FILTER)), changed((FILTER, other + FILTER))]
    by_header, by_principal = Expected(peer=PeerSource.XFCC), Expected(peer=PeerSource.PRINCIPAL)
    assert [_findings(text, by_header) for text in texts] == [[(EnvoyCode.HEADER_FORWARDED, "warning")], []]
    assert _findings(texts[0], by_principal) == []

    forged = ("x-to", f"URI={SLEEP.spiffe_id}")
    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, BY_HEADER)) as (forging, removing):
        assert forging.get("", "/free", forged) == (200, "allow-rule-matched")
        assert removing.get("", "/free", forged) == (403, "no-allow-rule-matched")
