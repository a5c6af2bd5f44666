"""A real gRPC client behind the real Envoy: what a refused token tells it, by `jwt_authn` itself and by Countersign."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml
from countersign.mesh.countersign import Countersign
from countersign.mesh.envoy import Envoy
from countersign.mesh.relocate import Places
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.envoy.judge import jwt_authn
from tests.tokens.material import jwk, sign

pytestmark = pytest.mark.envoy

NOW: Final = int(time.time())  # perhaps half an hour before the tests are run
DAY: Final = 86_400  # seconds
ISSUER: Final = "https://idp.example"
RULE: Final = {
    "issuer": ISSUER,
    "audiences": ["svc"],
    "jwks": json.dumps({"keys": [jwk("ES256")]}),
    "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
}
CHECK: Final = "/grpc.health.v1.Health/Check"
HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
SETTLED: Final = 10.0  # seconds


def token(**changed: Any) -> str:
    claims = {"iss": ISSUER, "sub": "alice", "aud": "svc", "exp": NOW + DAY, **changed}
    return sign(claims, algorithm="ES256")


TOKENS: Final = {
    "good": (token(), grpc.StatusCode.OK, ""),
    "expired": (token(exp=NOW - DAY), grpc.StatusCode.UNAUTHENTICATED, "Jwt is expired"),
    "another audience": (token(aud="x"), grpc.StatusCode.PERMISSION_DENIED, "Audiences in Jwt are not allowed"),
    "another issuer": (token(iss="https://x.test"), grpc.StatusCode.UNAUTHENTICATED, "Jwt issuer is not configured"),
    "forged": (
        sign({"iss": ISSUER, "aud": "svc", "exp": NOW + DAY}, algorithm="ES256", which=1, header={"alg": "ES256"}),
        grpc.StatusCode.UNAUTHENTICATED,
        "Jwt verification fails",
    ),
    "garbage": (
        "x",
        grpc.StatusCode.UNAUTHENTICATED,
        "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    ),
}


class Door:
    """A channel to one listener."""

    def __init__(self, port: int) -> None:
        self._address = f"127.0.0.1:{port}"

    def call(self, *metadata: tuple[str, str], method: str = CHECK) -> tuple[grpc.StatusCode, str]:
        with grpc.insecure_channel(self._address) as channel:
            check = channel.unary_unary(
                method,
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=SETTLED, wait_for_ready=True)
            except grpc.RpcError as error:
                return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Door]]:
    directory = tmp_path_factory.mktemp("g")
    policies = directory / "policies.yaml"
    policies.write_text(yaml.safe_dump_all(_policies()), encoding="utf-8")
    with contextlib.ExitStack() as parts:
        workload = grpc.server(ThreadPoolExecutor(2))
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, workload)
        upstream = workload.add_insecure_port("127.0.0.1:0")
        workload.start()
        parts.callback(lambda: workload.stop(None).wait())
        socket = directory / "authz.sock"
        countersign = parts.enter_context(Countersign(socket, policies, directory))
        configuration = directory / "callers.yaml"
        configuration.write_text(json.dumps(_bootstrap(upstream, socket)), encoding="utf-8")
        kept = {f"127.0.0.1:{port}": ("127.0.0.1", port) for port in (0, upstream)}
        places = Places(addresses=kept, paths={directory.as_posix(): directory})
        envoy = parts.enter_context(Envoy(configuration, places, directory))
        countersign.wait_ready()
        envoy.wait_ready()
        yield {name: Door(envoy.port(name)) for name in ("native", "countersign")}


def _policies() -> Iterator[Mapping[str, Any]]:
    for kind, spec in (
        ("RequestAuthentication", {"jwtRules": [RULE]}),
        ("AuthorizationPolicy", {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/secret/*"]}}]}]}),
    ):
        metadata = {"name": "users", "namespace": "apps"}
        yield {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _bootstrap(upstream: int, socket: Path) -> Mapping[str, Any]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}

    def cluster(name: str, address: Mapping[str, Any]) -> Mapping[str, Any]:
        endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
        return {
            "name": name,
            "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
            "typed_extension_protocol_options": {options: http2},
        }

    def listener(name: str, *filters: Mapping[str, Any]) -> Mapping[str, Any]:
        route: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "workload"}}
        if name == "countersign":
            settings = {"check_settings": {"context_extensions": {"workload.namespace": "apps"}}}
            route["typed_per_filter_config"] = {name: {"@type": f"{HTTP}.ext_authz.v3.ExtAuthzPerRoute", **settings}}
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network"
            ".http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "http_filters": [
                *filters,
                {"name": "router", "typed_config": {"@type": f"{HTTP}.router.v3.Router"}},
            ],
            "route_config": {"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]},
        }
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        return {"name": name, "address": _port(0), "filter_chains": [chain]}

    jwt = {**jwt_authn.filter_config([RULE]), "rules": [
        {"match": {"prefix": "/"}, "requirement_name": jwt_authn.REQUIREMENT}
    ]}  # fmt: skip
    ext_authz = {
        "@type": f"{HTTP}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "countersign"}, "timeout": "5s"},
        "encode_raw_headers": True,
        "validate_mutations": True,
    }
    return {
        "admin": {"address": _port(0)},
        "static_resources": {
            "listeners": [
                listener("native", {"name": "jwt", "typed_config": jwt}),
                listener("countersign", {"name": "countersign", "typed_config": ext_authz}),
            ],
            "clusters": [cluster("workload", _port(upstream)), cluster("countersign", {"pipe": {"path": str(socket)}})],
        },
    }


def _port(number: int) -> Mapping[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": number}}


@pytest.mark.parametrize("arm", ["native", "countersign"])
@pytest.mark.parametrize("name", TOKENS)
def test_a_grpc_caller_gets_status_and_text_in_its_trailers(doors: Mapping[str, Door], arm: str, name: str) -> None:
    text, code, details = TOKENS[name]

    assert doors[arm].call(("authorization", f"Bearer {text}")) == (code, details)


@pytest.mark.parametrize("arm", ["native", "countersign"])
def test_a_grpc_caller_without_a_token_goes_through(doors: Mapping[str, Door], arm: str) -> None:
    assert doors[arm].call() == (grpc.StatusCode.OK, "")


def test_a_grpc_caller_whom_a_policy_denies_hears_so(doors: Mapping[str, Door]) -> None:
    denied = doors["countersign"].call(method="/secret/Check")

    assert denied == (grpc.StatusCode.PERMISSION_DENIED, "RBAC: access denied")
    assert doors["native"].call(method="/secret/Check")[0] is grpc.StatusCode.UNIMPLEMENTED
