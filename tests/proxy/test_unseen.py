"""Nothing that leads past the check is passed over in silence: wherever it stands, and however it got there."""

import json
from typing import Any, Final

import pytest
import yaml
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, Seen, look

from tests.proxy.test_lint import GOOD, PACKAGE

C: Final = EnvoyCode
TYPE: Final = "type.googleapis.com/envoy"
NETWORK: Final = f"{TYPE}.extensions.filters.network"
PROXY: Final = {"@type": f"{NETWORK}.tcp_proxy.v3.TcpProxy", "stat_prefix": "a", "cluster": "application"}
CHECK: Final = {
    "@type": f"{NETWORK}.ext_authz.v3.ExtAuthz",
    "grpc_service": {"envoy_grpc": {"cluster_name": "countersign"}},
}
TOLD: Final = [(C.NOT_ASKED_HERE, "warning")]


def _look(document: object) -> Seen:
    return look(json.dumps(document).encode(), "envoy.json", Expected())


def _codes(document: object) -> list[tuple[str, str]]:
    return [(str(each.code), str(each.severity)) for each in _look(document).problems]


def _good() -> Any:
    return json.loads(json.dumps(yaml.safe_load(GOOD)))  # without aliases


def _manager(document: Any, chain: int = 0) -> Any:
    return document["static_resources"]["listeners"][0]["filter_chains"][chain]["filters"][0]["typed_config"]


def _beside(*configs: object, direction: object = None, default: bool = False) -> Any:
    """The sidecar, and a listener with these network filters."""
    document = _good()
    chain = {"filters": [{"name": str(number), "typed_config": each} for number, each in enumerate(configs)]}
    listener: dict[str, object] = {
        "name": "beside",
        **({"default_filter_chain": chain} if default else {"filter_chains": [chain]}),
    }
    if direction is not None:
        listener["traffic_direction"] = direction
    document["static_resources"]["listeners"].append(listener)
    return document


def _unchecked() -> Any:
    config = _manager(_good())
    del config["http_filters"][0]
    return config


def _struct(config: Any) -> dict[str, object]:
    """The same in a TypedStruct."""
    value = {key: each for key, each in config.items() if key != "@type"}
    return {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": config["@type"], "value": value}


# --- listeners and their filter chains --------------------------------------------------------------------------------


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("unchecked", [PROXY, _unchecked()], ids=["tcp_proxy", "manager"])
@pytest.mark.parametrize(
    ("direction", "found"),
    [
        (None, TOLD), ("UNSPECIFIED", TOLD), ("INBOUND", TOLD), (0, TOLD), (1, TOLD), ("1", TOLD), ("any", TOLD),
        ("OUTBOUND", []), ("outbound", []), (2, []), ("2", []),
    ],
)  # fmt: skip
def test_only_what_leaves_the_machine_may_pass_unchecked(
    direction: object, found: list[tuple[str, str]], unchecked: object, default: bool
) -> None:
    assert _codes(_beside(unchecked, direction=direction, default=default)) == found
    assert _codes(_beside(CHECK, PROXY, direction=direction, default=default)) == []


def test_a_check_of_the_connection_counts_for_what_comes_after_it() -> None:
    assert _codes(_beside(PROXY, CHECK)) == TOLD
    assert _codes(_beside({"@type": f"{NETWORK}.rbac.v3.RBAC"}, PROXY)) == TOLD
    other = {"@type": f"{NETWORK}.echo.v3.Echo", "cluster": "application"}  # a proxy is what is one
    assert _codes(_beside(other)) == []


def test_network_filters_in_a_typed_struct_are_what_they_say_they_are() -> None:
    assert _codes(_beside(_struct(PROXY))) == TOLD
    assert _codes(_beside(_struct(_unchecked()))) == TOLD
    assert _codes(_beside(_struct(CHECK), _struct(PROXY))) == []
    document = _good()
    for number, chain in enumerate(document["static_resources"]["listeners"][0]["filter_chains"]):
        _manager(document, number)["http_filters"][0]["typed_config"]["failure_mode_allow"] = True
        chain["filters"][0]["typed_config"] = _struct(chain["filters"][0]["typed_config"])
    assert _codes(document) == [(C.FAILS_OPEN, "error")] * 2
    for kind in (PROXY, _unchecked()):
        _codes(_beside({key: each for key, each in _struct(kind).items() if key != "value"}))  # no traceback


@pytest.mark.parametrize(
    ("trust", "found"), [("VERIFY_TRUST_CHAIN", []), ("ACCEPT_UNTRUSTED", [(C.CERTIFICATE_UNVERIFIED, "error")])]
)
def test_over_quic_certificates_are_looked_at_as_over_tcp(trust: str, found: list[tuple[str, str]]) -> None:
    document = _good()
    socket = document["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]
    tls = socket["typed_config"]
    tls["common_tls_context"]["validation_context"]["trust_chain_verification"] = trust
    kind = f"{TYPE}.extensions.transport_sockets.quic.v3.QuicDownstreamTransport"
    socket["typed_config"] = {"@type": kind, "downstream_tls_context": tls}

    assert _codes(document) == found


# --- what a management server sends -----------------------------------------------------------------------------------


def _discovering(name: str, *kinds: str) -> Any:
    """The sidecar with a filter after the check that a management server sends."""
    document = _good()
    for number in range(2):
        discovery = {"config_source": {"ads": {}}, "type_urls": [f"{PACKAGE}.{kind}" for kind in kinds]}
        _manager(document, number)["http_filters"].insert(1, {"name": name, "config_discovery": discovery})
    return document


def test_only_an_extension_is_what_a_management_server_sent() -> None:
    """Not whatever else has its name: the filter of another listener has not come for this one."""
    document = _discovering("late", "lua.v3.Lua")
    cors = {"name": "late", "typed_config": {"@type": f"{PACKAGE}.cors.v3.Cors"}}
    late = [(C.CHANGED_AFTERWARDS, "error")] * 2
    assert (_codes(document), len(_look(document).notes)) == (late, 1)
    assert (_codes({**document, "more": [cors]}), len(_look({**document, "more": [cors]}).notes)) == (late, 1)

    sent = {**document, "more": [{"@type": f"{TYPE}.config.core.v3.TypedExtensionConfig", **cors}]}
    assert (_codes(sent), _look(sent).notes) == ([], ())  # what has come counts, not what might have


def test_of_several_kinds_that_may_come_the_worst_counts() -> None:
    assert _codes(_discovering("late", "cors.v3.Cors", "lua.v3.Lua")) == [(C.CHANGED_AFTERWARDS, "error")] * 2
    assert _codes(_discovering("late", "cors.v3.Cors")) == []


def test_a_network_filter_that_is_not_in_the_file_is_said_to_be_unseen() -> None:
    document = _beside(PROXY)
    (filter_,) = document["static_resources"]["listeners"][1]["filter_chains"][0]["filters"]
    config = filter_.pop("typed_config")
    filter_["config_discovery"] = {"config_source": {"ads": {}}, "type_urls": [config["@type"]]}
    assert "management server" in _look(document).notes[0]

    extension = {"@type": f"{TYPE}.config.core.v3.TypedExtensionConfig", "name": "0", "typed_config": config}
    sent = {**document, "more": [extension]}
    assert (_codes(sent), _look(sent).notes) == (TOLD, ())


def test_a_filter_without_a_configuration_is_said_to_be_unseen() -> None:
    document = _good()
    _manager(document)["http_filters"].insert(1, {"name": "what"})

    assert "management server" in _look(document).notes[0]


@pytest.mark.parametrize("name", ["rds", "lds_config", "scoped_routes"])
def test_whatever_is_fetched_is_said_to_be_unseen_but_not_of_a_dump(name: str) -> None:
    document = {**_good(), "more": {name: {"ads": {}}}}
    assert "management server" in _look(document).notes[0]

    dump = {"configs": [{"@type": f"{TYPE}.admin.v3.BootstrapConfigDump", "bootstrap": document}]}
    assert _look(dump).notes == ()


@pytest.mark.parametrize("first", [True, False])
def test_endpoints_are_found_wherever_they_stand(first: bool) -> None:
    """The filter names its cluster by `cluster_name` too, without endpoints."""
    document = _good()
    cluster = document["static_resources"]["clusters"][1]
    assignment = cluster.pop("load_assignment")
    cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}
    socket = {"socket_address": {"address": "192.0.2.7", "port_value": 9191}}
    assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = socket
    more = {"more": [assignment]}

    assert _codes({**more, **document} if first else {**document, **more}) == [(C.PLAINTEXT_CALLOUT, "error")]


def test_a_cluster_of_any_kind_is_looked_at() -> None:
    document = _good()
    cluster = document["static_resources"]["clusters"][1]
    del cluster["load_assignment"], cluster["typed_extension_protocol_options"]
    cluster["cluster_type"] = {"name": "envoy.clusters.dns"}

    assert _codes(document) == [(C.WRONG_PROTOCOL, "error")]


# --- dumps that have a part only --------------------------------------------------------------------------------------


def test_a_dump_of_the_bootstrap_alone_is_judged() -> None:
    document = _good()
    _manager(document)["http_filters"][0]["typed_config"]["failure_mode_allow"] = True
    dump = {"@type": f"{TYPE}.admin.v3.BootstrapConfigDump", "bootstrap": document}

    assert _codes({"configs": [dump]}) == [(C.FAILS_OPEN, "error")]


def test_a_dump_of_static_routes_alone_is_judged() -> None:
    off = {"@type": f"{PACKAGE}.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
    routes = {"virtual_hosts": [{"name": "a", "typed_per_filter_config": {"check": off}}]}
    dump = {"@type": f"{TYPE}.admin.v3.RoutesConfigDump", "static_route_configs": [{"route_config": routes}]}

    assert (C.SWITCHED_OFF, "error") in _codes({"configs": [dump]})
