"""What a management server sends, and what the admin interface shows of it: found by name, and only what is in use."""

import json
from typing import Any, Final

import yaml
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, Seen, look

from tests.proxy.test_lint import GOOD

C: Final = EnvoyCode
TYPE: Final = "type.googleapis.com/envoy"
ADMIN: Final = f"{TYPE}.admin.v3"
HTTP: Final = f"{TYPE}.extensions.filters.http"
CA: Final = {"trusted_ca": {"inline_bytes": "Li4u"}}


def _look(document: object) -> Seen:
    return look(json.dumps(document).encode(), "dump.json", Expected())


def _codes(document: object) -> list[tuple[str, str]]:
    return [(str(each.code), str(each.severity)) for each in _look(document).problems]


def _good() -> Any:
    return yaml.safe_load(json.dumps(yaml.safe_load(GOOD)))  # without aliases: a change is of one place


def _listener() -> Any:
    return _good()["static_resources"]["listeners"][0]


def _manager(listener: Any, chain: int = 0) -> Any:
    return listener["filter_chains"][chain]["filters"][0]["typed_config"]


def _dump(**parts: list[object]) -> dict[str, object]:
    """``/config_dump``: a part of a name such as ``Listeners__dynamic_listeners`` is a list of that dump."""
    configs = []
    for name, entries in parts.items():
        kind, _, member = name.partition("__")
        configs.append({"@type": f"{ADMIN}.{kind}ConfigDump", member: entries})
    return {"configs": configs}


def _active(listener: Any) -> dict[str, object]:
    return {"name": listener["name"], "active_state": {"version_info": "1", "listener": listener}}


def test_a_healthy_listener_of_a_management_server_is_fine_in_every_shape() -> None:
    typed = {"@type": f"{TYPE}.config.listener.v3.Listener", **_listener()}
    cluster = {"@type": f"{TYPE}.config.cluster.v3.Cluster", **_good()["static_resources"]["clusters"][1]}

    for document in (
        typed,
        {"resources": [typed, cluster]},
        {"version_info": "1", "resources": [typed, cluster], "type_url": typed["@type"], "nonce": "a"},
        _dump(Listeners__dynamic_listeners=[_active(typed)]),
        {"configs": [{"@type": f"{ADMIN}.ListenersConfigDump.DynamicListener", **_active(typed)}]},
    ):
        assert _codes(document) == []
        assert _look(document).managers == 2
        assert _look(document).notes == ()
        assert look(yaml.safe_dump(document).encode(), "a.yaml", Expected()).problems == ()


def test_each_filter_chain_of_each_listener_is_judged_for_itself() -> None:
    first, second = _listener(), _listener()
    second["name"] = "second"
    _manager(second, 1)["merge_slashes"] = False
    (problem,) = _look(_dump(Listeners__dynamic_listeners=[_active(first), _active(second)])).problems
    assert problem.code == C.SLASHES_AS_SENT

    second["default_filter_chain"] = second["filter_chains"].pop(1)
    assert _codes({"resources": [first, second]}) == [(C.SLASHES_AS_SENT, "warning")]


def test_what_is_not_in_use_is_not_judged() -> None:
    bad = _listener()
    _manager(bad)["merge_slashes"] = False
    good = _active(_listener())

    for state in ("draining_state", "error_state"):
        old = {"name": "old", state: {"listener": bad}}
        assert _codes(_dump(Listeners__dynamic_listeners=[good, old])) == []
        assert _codes({"configs": [{"@type": f"{ADMIN}.ListenersConfigDump.DynamicListener", **old}, good]}) == []
    for state in ("active_state", "warming_state"):
        new = {"name": "new", state: {"listener": bad}}
        assert _codes(_dump(Listeners__dynamic_listeners=[new])) == [(C.SLASHES_AS_SENT, "warning")]


def test_what_the_admin_interface_redacts_is_not_judged_but_its_name_is() -> None:
    listener = _listener()
    (host,) = _manager(listener)["route_config"]["virtual_hosts"]
    (settings,) = host["typed_per_filter_config"].values()
    for key, found in (("namespace", []), ("namespaces", [(C.WORKLOAD_UNREADABLE, "error")])):
        settings["check_settings"]["context_extensions"] = {f"workload.{key}": "[redacted]"}
        assert _codes(listener) == found


def test_a_route_that_stands_in_its_listener_is_told_once() -> None:
    listener = _listener()
    del listener["filter_chains"][1]
    (host,) = _manager(listener)["route_config"]["virtual_hosts"]
    host["typed_per_filter_config"]["envoy.filters.http.ext_authz"] = {
        "@type": f"{HTTP}.ext_authz.v3.ExtAuthzPerRoute",
        "disabled": True,
    }
    routes = {"route_config": _manager(listener)["route_config"]}
    document = _dump(Listeners__dynamic_listeners=[_active(listener)], Routes__static_route_configs=[routes])

    assert _codes(document) == [(C.SWITCHED_OFF, "error")]
    assert _codes(_dump(Routes__dynamic_route_configs=[routes])) == [
        (C.NOBODY_ASKED, "error"),
        (C.SWITCHED_OFF, "error"),
    ]


def test_a_validation_context_is_found_by_the_name_of_its_secret() -> None:
    listener = _listener()
    common = listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    del common["validation_context"]
    fetched = {"validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": {"ads": {}}}}
    common["combined_validation_context"] = {"default_validation_context": {}, **fetched}

    def found(context: object) -> list[tuple[str, str]]:
        secret = {"name": "ROOTCA", "secret": {"name": "ROOTCA", "validation_context": context}}
        return _codes(_dump(Listeners__dynamic_listeners=[_active(listener)], Secrets__dynamic_active_secrets=[secret]))

    assert found(CA) == []
    assert _codes(listener) == []  # it may be anything: Envoy does not listen without it
    assert found({}) == [(C.CERTIFICATE_NOT_REQUIRED, "warning")]
    assert found({**CA, "trust_chain_verification": "ACCEPT_UNTRUSTED"}) == [(C.CERTIFICATE_UNVERIFIED, "error")]


def test_a_filter_is_found_by_the_name_of_its_discovery() -> None:
    listener = _listener()
    del listener["filter_chains"][1]
    filters = _manager(listener)["http_filters"]
    config = filters[0].pop("typed_config")
    filters[0]["config_discovery"] = {"config_source": {"ads": {}}, "type_urls": [config["@type"]]}
    extension = {
        "@type": f"{TYPE}.config.core.v3.TypedExtensionConfig",
        "name": filters[0]["name"],
        "typed_config": config,
    }

    def dump(*filters: object) -> object:
        return _dump(Listeners__dynamic_listeners=[_active(listener)], Ecds__ecds_filters=list(filters))

    assert _codes(dump({"ecds_filter": extension})) == []
    assert _look(dump({"ecds_filter": extension})).notes == ()
    config["failure_mode_allow"] = True
    assert _codes(dump({"ecds_filter": extension})) == [(C.FAILS_OPEN, "error")]
    assert _codes(dump()) == [(C.NOBODY_ASKED, "error")]
    assert "management server" in _look(dump()).notes[0]
    filters[0]["config_discovery"]["default_config"] = config
    assert _codes(dump()) == [(C.FAILS_OPEN, "error")]


def test_endpoints_from_a_management_server_are_held_or_said_to_be_unseen() -> None:
    document = _good()
    cluster = document["static_resources"]["clusters"][1]
    own = cluster.pop("load_assignment")
    cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}
    assert _codes(document) == []
    assert "include_eds" in _look(document).notes[0]

    document["endpoints"] = [own]
    assert (_codes(document), _look(document).notes) == ([], ())
    socket = {"socket_address": {"address": "192.0.2.7", "port_value": 9191}}
    own["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = socket
    assert _codes(document) == [(C.PLAINTEXT_CALLOUT, "error")]


def test_tls_to_countersign_is_tls_and_not_any_transport_socket() -> None:
    document = _good()
    cluster = document["static_resources"]["clusters"][1]
    socket = {"socket_address": {"address": "192.0.2.7", "port_value": 9191}}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = socket
    plain, tls = ({"name": f"envoy.transport_sockets.{kind}"} for kind in ("raw_buffer", "tls"))

    cluster["transport_socket"] = plain
    assert _codes(document) == [(C.PLAINTEXT_CALLOUT, "error")]
    cluster["transport_socket_matches"] = [{"name": "a", "match": {}, "transport_socket": plain}]
    assert _codes(document) == [(C.PLAINTEXT_CALLOUT, "error")]
    cluster["transport_socket_matches"].append({"name": "b", "match": {}, "transport_socket": tls})
    assert _codes(document) == []


def _istio_chain(*, tls: bool, filters: list[object]) -> dict[str, Any]:
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound_0.0.0.0_8080;",
        "route_config": {
            "name": "inbound|8080||",
            "virtual_hosts": [
                {
                    "name": "inbound|http|8080",
                    "domains": ["*"],
                    "routes": [
                        {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "inbound|8080||"}},
                    ],
                }
            ],
        },
        "http_filters": filters,
        "server_name": "istio-envoy",
        "use_remote_address": False,
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",  # meshConfig: DECODE_AND_MERGE_SLASHES
    }
    chain: dict[str, Any] = {
        "filter_chain_match": {"destination_port": 8080, "transport_protocol": "tls" if tls else "raw_buffer"},
        "filters": [
            {
                "name": "istio.metadata_exchange",
                "typed_config": {
                    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                    "type_url": f"{TYPE}.tcp.metadataexchange.config.MetadataExchange",
                    "value": {"protocol": "istio-peer-exchange"},
                },
            },
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
        ],
    }
    if tls:
        names = [{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}]
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": {"ads": {}}}],
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": names},
                        "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": {"ads": {}}},
                    },
                },
                "require_client_certificate": True,
            },
        }
    return chain


def _istio() -> dict[str, Any]:
    """A sidecar of Istio with a CUSTOM policy, in the order and the words in which Istio writes it."""
    cluster = "outbound|9191||countersign.countersign.svc.cluster.local"
    check = {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{HTTP}.ext_authz.v3.ExtAuthz",
            "grpc_service": {"envoy_grpc": {"cluster_name": cluster, "authority": "countersign"}, "timeout": "0.250s"},
            "transport_api_version": "V3",
            "stat_prefix": "extauthz",
            "status_on_error": {"code": "ServiceUnavailable"},
            "filter_enabled_metadata": {
                "filter": "envoy.filters.http.rbac",
                "path": [{"key": "istio-ext-authz-shadow-effective-policy-id"}],
                "value": {"string_match": {"prefix": "istio-ext-authz"}},
            },
        },
    }
    shadow = {"name": "rbac", "typed_config": {"@type": f"{HTTP}.rbac.v3.RBAC", "shadow_rules": {"policies": {}}}}
    stats = {
        "name": "istio.stats",
        "typed_config": {
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
            "type_url": "type.googleapis.com/stats.PluginConfig",
            "value": {"disable_host_header_fallback": True},
        },
    }
    rest: list[object] = [
        {"name": name, "typed_config": {"@type": f"{HTTP}.{kind}"}}
        for name, kind in (
            ("istio.alpn", "alpn.v2alpha1.FilterConfig"),
            ("envoy.filters.http.fault", "fault.v3.HTTPFault"),
            ("envoy.filters.http.cors", "cors.v3.Cors"),
            ("envoy.filters.http.grpc_stats", "grpc_stats.v3.FilterConfig"),
        )
    ]
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}}
    filters: list[object] = [shadow, check, *rest, stats, router]
    inbound = {
        "name": "virtualInbound",
        "traffic_direction": "INBOUND",
        "filter_chains": [_istio_chain(tls=True, filters=filters), _istio_chain(tls=False, filters=filters)],
    }
    outbound = {
        "name": "0.0.0.0_80",
        "traffic_direction": "OUTBOUND",
        "filter_chains": [_istio_chain(tls=False, filters=[*rest, router])],
    }
    own = {"name": "", "filter_chains": [_istio_chain(tls=False, filters=[router])]}
    routes = _manager_of(own)["route_config"]["virtual_hosts"][0]["routes"]
    routes[0] = {"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}}
    sockets = [
        {"name": f"tlsMode-{mode}", "match": {}, "transport_socket": {"name": f"envoy.transport_sockets.{kind}"}}
        for mode, kind in (("istio", "tls"), ("disabled", "raw_buffer"))
    ]
    asked = {
        "name": cluster,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}, "service_name": cluster},
        "transport_socket_matches": sockets,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "explicit_http_config": {"http2_protocol_options": {}}
            }
        },
    }
    address = {"socket_address": {"address": "192.0.2.9", "port_value": 9191}}
    endpoints = {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    root = {"name": "ROOTCA", "secret": {"name": "ROOTCA", "validation_context": CA}}
    return _dump(
        Bootstrap__bootstrap=[{"dynamic_resources": {"lds_config": {"ads": {}}}}],
        Clusters__dynamic_active_clusters=[{"cluster": asked}],
        Listeners__dynamic_listeners=[_active(inbound), _active(outbound), _active(own)],
        Secrets__dynamic_active_secrets=[root],
        Endpoints__dynamic_endpoint_configs=[{"endpoint_config": endpoints}],
    )


def _manager_of(listener: Any) -> Any:
    return listener["filter_chains"][0]["filters"][1]["typed_config"]


def test_of_a_sidecar_of_istio_only_what_istio_cannot_set_is_told() -> None:
    """In each of two filter chains: Istio has no field for these."""
    seen = _look(_istio())
    told = [C.ASKED_SOMETIMES, C.UNDERSCORES, C.HEADERS_JOINED, C.CERTIFICATE_WITHHELD, C.SERVER_NAME_WITHHELD]

    assert sorted(each.code for each in seen.problems) == sorted([*told, C.MUTATIONS_UNCHECKED] * 2)
    assert {str(each.severity) for each in seen.problems} == {"warning"}
    assert (seen.managers, seen.notes) == (4, ())


def test_a_listener_beside_it_that_leads_to_an_application_without_a_check_is_told() -> None:
    document = _istio()
    (listeners,) = (each["dynamic_listeners"] for each in document["configs"] if "dynamic_listeners" in each)
    own = _manager_of(listeners[2]["active_state"]["listener"])
    own["route_config"]["virtual_hosts"][0]["routes"].append({"match": {"prefix": "/"}, "route": {"cluster": "app"}})

    assert (C.NOT_ASKED_HERE, "warning") in _codes(document)
    del own["route_config"]
    assert (C.NOT_ASKED_HERE, "warning") in _codes(document)
