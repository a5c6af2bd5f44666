"""The real Envoy and the header that says whose request it is: what Envoy takes for remote.ip, so does `istio`."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from countersign.core.posture import Posture
from countersign.core.remote_ip import remote_ip
from countersign.mesh.client import Door, send
from countersign.mesh.envoy import Envoy
from countersign.mesh.relocate import Places

from tests.support.requests import facts

pytestmark = pytest.mark.envoy

LOOPBACK: Final = "127.0.0.1"
TYPE: Final = "type.googleapis.com/envoy.extensions"


def _manager() -> dict[str, Any]:
    """A connection manager that takes the client's address from a header, and answers with what it took."""
    detection = {
        "@type": f"{TYPE}.http.original_ip_detection.custom_header.v3.CustomHeaderConfig",
        "header_name": "x-client",
    }
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "found", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}],
    }
    router = {"@type": f"{TYPE}.filters.http.router.v3.Router"}
    return {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "original_ip_detection_extensions": [{"name": "client", "typed_config": detection}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
    }


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    directory = tmp_path_factory.mktemp("remote-ip")
    address = {"socket_address": {"address": LOOPBACK, "port_value": 0}}
    filters = [{"name": "http", "typed_config": _manager()}]
    listener = {"name": "in", "address": address, "filter_chains": [{"filters": filters}]}
    configuration = directory / "envoy.yaml"
    configuration.write_text(json.dumps({"admin": {"address": address}, "static_resources": {"listeners": [listener]}}))
    places = Places(addresses={f"{LOOPBACK}:0": (LOOPBACK, 0)}, paths={})
    with Envoy(configuration, places, directory) as envoy:
        envoy.wait_ready()
        yield Door(name="in", port=envoy.port("in"))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("1.2.3.4",),
        ("2001:db8::1",),
        ("",),
        ("garbage",),
        ("1.2.3.4:5555",),
        ("[2001:db8::1]",),
        ("1.2.3.4, 5.6.7.8",),
        ("1.2.3.4", "5.6.7.8"),
        ("garbage", "5.6.7.8"),
        ("1.2.3",),
        ("01.2.3.4",),
    ],
)
def test_istio_reads_the_header_as_envoy_does(door: Door, lines: tuple[str, ...]) -> None:
    sent = tuple(("x-client", line) for line in lines)
    answer = send(door, "GET", "/", sent)

    assert answer.headers["found"] == remote_ip(facts(*sent, source=LOOPBACK), 0, "x-client", Posture.ISTIO)
