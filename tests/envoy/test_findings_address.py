"""As `test_findings`, for whom the client's address is read from: with the setting a client writes it itself."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look
from countersign.snapshot import Mesh

from tests.edge.serving import snapshot
from tests.envoy.sidecar import Change, changed, sidecars
from tests.envoy.test_findings import FILTER, MUTATIONS, ROUTER, written_by_filter
from tests.envoy.test_findings_around import FROM_OFFICE

pytestmark = pytest.mark.envoy

OFFICE: Final = "203.0.113.7"
REMOTE: Final = "use_remote_address: true"
BEHIND: Final = "use_remote_address: false"
EXTERNAL: Final = "x-envoy-external-address"
EARLY: Final = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
LOOPBACK: Final = "internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"
ITS_OWN: Final = {"key": "x-client", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}


def _with(*settings: str) -> Change:
    return REMOTE, f"\n{' ' * 16}".join(settings)


# How many proxies are trusted, or which header; what is set and what its twin has; what the client writes.
FORGED: Final = [
    (1, "", _with(BEHIND), _with(REMOTE), ("x-forwarded-for", f"{OFFICE}, 198.51.100.9")),
    (1, "", _with(REMOTE, "skip_xff_append: true"), _with(REMOTE), ("x-forwarded-for", f"{OFFICE}, 198.51.100.9")),
    (0, EXTERNAL, _with(BEHIND), _with(REMOTE), (EXTERNAL, OFFICE)),
    (0, EXTERNAL, _with(REMOTE, LOOPBACK), _with(REMOTE), (EXTERNAL, OFFICE)),
    (0, EXTERNAL, _with(REMOTE, "internal_address_config: {}"), _with(REMOTE), (EXTERNAL, OFFICE)),
]


def _findings(text: str, mesh: Mesh) -> list[tuple[str, str]]:
    expected = Expected(remote_ip_hops=mesh.remote_ip_hops, remote_ip_header=mesh.remote_ip_header)
    return [(str(each.code), str(each.severity)) for each in look(text.encode(), "envoy.yaml", expected).problems]


@pytest.mark.parametrize(("hops", "header", "found", "fine", "written"), FORGED)
def test_a_client_writes_its_own_address(
    tmp_path: Path, hops: int, header: str, found: Change, fine: Change, written: tuple[str, str]
) -> None:
    mesh = Mesh(namespace="apps", remote_ip_hops=hops, remote_ip_header=header)
    texts = [changed(found), changed(fine)]
    assert [_findings(text, mesh) for text in texts] == [[(EnvoyCode.ADDRESS_WRITTEN, "error")], []]
    nobody_reads_it = [_findings(text, Mesh(namespace="apps")) for text in texts]
    assert [(EnvoyCode.ADDRESS_WRITTEN, "error")] not in nobody_reads_it

    with sidecars(tmp_path, texts, snapshot(FROM_OFFICE, {}, mesh)) as (forged, read):
        assert forged.get("sleep", "/free", written) == (200, "allow-rule-matched")
        assert read.get("sleep", "/free", written) == (403, "no-allow-rule-matched")


def test_a_header_that_nothing_in_the_file_writes_is_whoever_writes_it(tmp_path: Path) -> None:
    mesh = Mesh(namespace="apps", remote_ip_header="x-client")
    mutation: dict[str, Any] = {"append": {"header": ITS_OWN, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    writer = written_by_filter({"mutations": {"request_mutations": [mutation]}})
    other = written_by_filter(MUTATIONS)
    early = json.dumps([{"name": "early", "typed_config": {"@type": EARLY, "mutations": [mutation]}}])
    by_manager = changed(_with(REMOTE, f"early_header_mutation_extensions: {early}"))
    texts = [changed((FILTER, other + FILTER)), changed((FILTER, writer + FILTER)), by_manager]
    unwritten = (EnvoyCode.ADDRESS_WRITTEN, "warning")
    assert [_findings(text, mesh) for text in texts] == [[unwritten], [], []]
    assert unwritten in _findings(changed((ROUTER, writer + ROUTER)), mesh)  # too late
    assert _findings(texts[0], Mesh(namespace="apps")) == []

    with sidecars(tmp_path, texts, snapshot(FROM_OFFICE, {}, mesh)) as (whoever, *envoys):
        assert whoever.get("sleep", "/free", ("x-client", OFFICE)) == (200, "allow-rule-matched")
        for envoy in envoys:
            assert envoy.get("sleep", "/free", ("x-client", OFFICE)) == (403, "no-allow-rule-matched")
