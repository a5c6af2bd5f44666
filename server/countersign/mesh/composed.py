"""The mesh of docker compose, from inside, as its `demo` service sees it.

What was decided, and why, it reads in Countersign's own log of decisions; what came of it, in Envoy's answer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from countersign.mesh.certificates import thumbprint
from countersign.mesh.client import Door
from countersign.mesh.minter import ask_for_new_keys, ask_for_token
from countersign.mesh.process import MeshError, wait_until
from countersign.mesh.scenario import EDIT, EDITED_FILE, SCENARIO, Caller, Change, Token

_RECORDED_WITHIN: Final = 3.0  # seconds


def _literal(text: str) -> str:
    """For sed."""
    return text.replace("[", r"\[")


# What a container can neither do nor undo, and what does it instead, from the host.
FROM_THE_HOST: Final[Mapping[Change, str]] = {
    Change.EDIT_POLICY: f"sed -i 's#{_literal(EDIT[0])}#{_literal(EDIT[1])}#' envoy/policies/{EDITED_FILE}",
    Change.STOP: "docker compose stop countersign",
    Change.START: "docker compose start countersign",
}
WALK: Final = tuple(step for step in SCENARIO if step.change not in FROM_THE_HOST)
LEFT_OUT: Final = tuple((s, FROM_THE_HOST[s.change]) for s in SCENARIO if s.change is not None and s not in WALK)
_PUBLISHED: Final = "http://127.0.0.1:15001"  # sleep's sidecar, on the host


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """The running mesh: addresses (host, port) of the sidecars, and what is on the volumes.

    ``policies`` is where Countersign reads them. ``read_from``: bytes of the log that were there before.
    """

    sleep: tuple[str, int]
    edge: tuple[str, int]
    httpbin: tuple[str, int]
    certificates: Path
    policies: Path
    minter: Path
    decisions: Path
    read_from: int

    def door(self, caller: Caller) -> Door:
        """Where the caller enters."""
        name, (host, port) = {
            Caller.SLEEP: ("sleep's sidecar", self.sleep),
            Caller.EDGE: ("the edge", self.edge),
        }.get(caller, ("httpbin's sidecar", self.httpbin))
        certificates = self.certificates / "batch" if caller is Caller.BATCH else None
        return Door(name=name, host=host, port=port, certificates=certificates)

    def token(self, token: Token) -> str:
        """A fresh token, of the issuer."""
        bound = thumbprint(self.certificates / token.confirms / "tls.crt") if token.confirms else ""
        return ask_for_token(self.minter, token.label, bound)

    def apply(self, change: Change) -> None:
        """Change the mesh while it runs. Raise `MeshError` for what only the host can do."""
        if change is not Change.ROTATE_KEYS:
            raise MeshError(f"{change}: only from the host, with `{FROM_THE_HOST[change]}`")
        ask_for_new_keys(self.minter)

    def logged(self, request_id: str) -> Mapping[str, Any]:
        """What Countersign has recorded of a request, in the shape of the sidecar's access log."""
        result = wait_until(
            f"finding request {request_id} in {self.decisions}",
            lambda: self._recorded(request_id),
            within=_RECORDED_WITHIN,
        )
        policy = result.get("policy", "")
        said = {
            "decision": result["action"],
            "reason": result["reason"],
            "policy": f"{policy}-rule[{result['rule']}]" if "rule" in result else policy,
            "source": result.get("source", ""),
            "detail": result.get("detail", ""),
        }
        return {"details": None, "ext_authz": said}  # Envoy's own reason stays with Envoy

    def _recorded(self, request_id: str) -> Mapping[str, Any] | None:
        with self.decisions.open("rb") as stream:
            stream.seek(self.read_from)
            octets = stream.read()
        for line in reversed(octets[: octets.rfind(b"\n") + 1].splitlines()):  # the last line may be half written
            if request_id.encode() in line:
                record = json.loads(line)
                if record.get("input", {}).get("request", {}).get("id") == request_id:
                    result: Mapping[str, Any] = record["result"]
                    return result
        return None


def left_out() -> str:
    """Which steps of the scenario need the host, and the commands that show them there."""
    lines = [f"{len(LEFT_OUT)} of the scenario's {len(SCENARIO)} requests are left out, for they need the host. There:"]
    for step, command in LEFT_OUT:
        lines += [f"  # {step.title}: {step.expected.status}", f"  {command}", f"  curl -i {_PUBLISHED}{step.path}"]
    return "\n".join(lines)
