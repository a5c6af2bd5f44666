"""As `test_findings`, for network filters that lead past the check: found by name, or chosen by whoever connects."""

import contextlib
import json
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look
from countersign.snapshot import Mesh

from tests.edge.serving import TIMEOUT, snapshot
from tests.envoy.sidecar import CONFIGURATION, Sidecar, config_dump, sidecars
from tests.envoy.test_findings import KEYS
from tests.envoy.test_findings_around import CHECK, NETWORK, PROXY, SLEEP_ALONE

pytestmark = pytest.mark.envoy

MESH: Final = Mesh(namespace="apps")
WARNED: Final = [(EnvoyCode.NOT_ASKED_HERE, "warning")]
NOWHERE: Final = {**PROXY, "typed_config": {**PROXY["typed_config"], "cluster": "nowhere"}}


def _document() -> Any:
    return json.loads(json.dumps(yaml.safe_load(CONFIGURATION)))  # without aliases


def _beside(filters: Sequence[object], *clusters: object) -> str:
    """The sidecar, and a listener with mTLS that has these network filters."""
    document = _document()
    listener = document["static_resources"]["listeners"][0]
    tls = _document()["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]
    tls["typed_config"]["common_tls_context"]["alpn_protocols"] = ["http/1.1"]
    chain = {"transport_socket": tls, "filters": list(filters)}
    beside = {**listener, "name": "beside", "filter_chains": [chain]}
    document["static_resources"]["listeners"].append(beside)
    document["static_resources"]["clusters"] += clusters
    return yaml.safe_dump(document)


def _network(name: str, kind: str, **fields: object) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{NETWORK}.{kind}", **fields}}


def _cluster_is(text: str) -> dict[str, Any]:
    """A filter that says where tcp_proxy goes."""
    value = {"object_key": "envoy.tcp_proxy.cluster", "format_string": {"text_format_source": {"inline_string": text}}}
    return _network("state", "set_filter_state.v3.Config", on_new_connection=[value])


def _findings(text: str) -> list[tuple[str, str]]:
    return [(str(each.code), str(each.severity)) for each in look(text.encode(), "envoy.yaml", Expected()).problems]


def _passes(envoy: Sidecar, caller: str) -> bool:
    """Whether the application answers, of whose path no policy was asked."""
    certificates = envoy.certificates / caller
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.check_hostname = False  # the name is that of a cluster
    context.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
    address = ("127.0.0.1", envoy.envoy.port("beside"))
    with contextlib.suppress(OSError), contextlib.ExitStack() as open_:
        plain = open_.enter_context(socket.create_connection(address, timeout=TIMEOUT))
        connection = open_.enter_context(context.wrap_socket(plain, server_hostname="application"))
        connection.sendall(b"GET /admin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.1 200"
    return False


SNI: Final = _network("sni", "sni_cluster.v3.SniCluster")
SAME: Final = {
    **_document()["static_resources"]["clusters"][0],
    "name": "same",
}
TO_SAME: Final = {**PROXY, "typed_config": {**PROXY["typed_config"], "cluster": "same"}}


@pytest.mark.parametrize(
    ("filters", "clusters"),
    [
        ([SNI, NOWHERE], []),
        ([_cluster_is("application"), NOWHERE], []),
        ([_cluster_is("%REQUESTED_SERVER_NAME%"), NOWHERE], []),
        ([TO_SAME], [SAME]),
    ],
    ids=["server name", "state", "state by server name", "another cluster of the same endpoints"],
)
def test_connections_reach_the_application_by_whatever_chooses_its_cluster(
    tmp_path: Path, filters: list[object], clusters: list[object]
) -> None:
    texts = [_beside(each, *clusters) for each in (filters, [CHECK, *filters])]
    assert [_findings(text) for text in texts] == [WARNED, []]

    with sidecars(tmp_path, texts, snapshot(SLEEP_ALONE, KEYS, MESH)) as (unchecked, checked):
        assert _passes(unchecked, "batch")
        assert not _passes(checked, "batch")
        assert _passes(checked, "sleep")


def test_connections_to_elsewhere_are_no_finding() -> None:
    assert _findings(_beside([NOWHERE])) == []
    assert _findings(_beside([_cluster_is("nowhere"), NOWHERE])) == []
    assert _findings(_beside([_network("state", "set_filter_state.v3.Config", on_new_connection=[]), NOWHERE])) == []


def _discovered(directory: Path, filter_: dict[str, Any]) -> dict[str, Any]:
    """A network filter whose configuration is in a file of its own."""
    kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    extension = {"@type": kind, "name": "found", "typed_config": filter_["typed_config"]}
    file = directory / "certs" / "found.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"version_info": "1", "resources": [extension]}))
    source = {"path_config_source": {"path": "/run/mesh/certs/found.yaml"}}
    return {
        "name": "found",
        "config_discovery": {"config_source": source, "type_urls": [filter_["typed_config"]["@type"]]},
    }


def _manager() -> dict[str, Any]:
    (filter_,) = _document()["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    del filter_["typed_config"]["http_filters"][0]
    del filter_["typed_config"]["route_config"]["virtual_hosts"][0]["typed_per_filter_config"]
    return dict(filter_)


@pytest.mark.parametrize("filter_", [PROXY, _manager()], ids=["tcp_proxy", "manager"])
def test_a_network_filter_from_a_management_server_is_said_to_be_unseen_and_found_in_the_dump(
    tmp_path: Path, filter_: dict[str, Any]
) -> None:
    found = _discovered(tmp_path, filter_)
    text = _beside([found])
    (note,) = look(text.encode(), "envoy.yaml", Expected()).notes
    assert "management server" in note

    with sidecars(tmp_path, [text, _beside([CHECK, PROXY])], snapshot(SLEEP_ALONE, KEYS, MESH)) as envoys:
        assert [_passes(envoy, "batch") for envoy in envoys] == [True, False]
        dumps = [config_dump(tmp_path, number) for number in range(2)]

    assert [_findings(dump) for dump in dumps] == [WARNED, []]
    assert look(dumps[0].encode(), "dump.json", Expected()).notes == ()
