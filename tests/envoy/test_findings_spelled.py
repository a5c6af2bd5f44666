"""As `test_findings`, for how a setting may be spelled: Envoy takes more for true, and for an enum, than one word."""

from pathlib import Path
from typing import Final

import pytest
from countersign.mesh.certificates import SLEEP
from countersign.policy.problems import Code
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look
from countersign.snapshot import Mesh

from tests.edge.serving import snapshot
from tests.envoy.sidecar import changed, sidecars
from tests.envoy.test_findings import BY_HEADER, POLICIES

pytestmark = pytest.mark.envoy

FAILS_OPEN: Final = [(str(EnvoyCode.FAILS_OPEN), "error")]
TWICE: Final = [(str(Code.DUPLICATE_KEY), "error")]
BOTH: Final = f"failure_mode_allow: false\n{' ' * 22}failureModeAllow: true"


def _findings(text: str, mesh: Mesh) -> list[tuple[str, str]]:
    expected = Expected(peer=mesh.peer.source)
    return [(str(each.code), str(each.severity)) for each in look(text.encode(), "envoy.yaml", expected).problems]


@pytest.mark.parametrize(
    ("spelled", "found"),
    [*((f'failure_mode_allow: "{true}"', FAILS_OPEN) for true in ("t", "T", "1", "YES", "y")), (BOTH, TWICE)],
)
def test_what_envoy_takes_for_true_is_found(tmp_path: Path, spelled: str, found: list[tuple[str, str]]) -> None:
    texts = [changed(("failure_mode_allow: false", spelled)), changed(("mode_allow: false", 'mode_allow: "f"'))]
    assert [_findings(text, Mesh()) for text in texts] == [found, []]

    with sidecars(tmp_path, texts, None) as envoys:
        assert [envoy.ask("batch", "/admin").status for envoy in envoys] == [200, 503]


@pytest.mark.parametrize("spelled", ["4", "04", "+4", " 4", "always_forward_only", "Always_Forward_Only"])
def test_what_envoy_takes_for_an_enum_is_found(tmp_path: Path, spelled: str) -> None:
    at = "details: APPEND_FORWARD"
    texts = [changed((at, f'details: "{spelled}"')), changed((at, 'details: "append_forward"'))]
    assert [_findings(text, BY_HEADER) for text in texts] == [[(str(EnvoyCode.HEADER_FORWARDED), "error")], []]

    forged = ("x-forwarded-client-cert", f"URI={SLEEP.spiffe_id}")
    with sidecars(tmp_path, texts, snapshot(POLICIES, {}, BY_HEADER)) as envoys:
        assert [envoy.get("", "/free", forged)[0] for envoy in envoys] == [200, 403]
