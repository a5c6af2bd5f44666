"""Istio's own code, asked: what it refuses, and which filters it makes of what it does not."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from tests.envoy.istio.build import Program
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.trust import Mesh

_QUIET: Final = {"TARGET_OUT": os.curdir, "LOCAL_OUT": os.curdir}  # or Istio's test packages say that they miss them
_STOPS_WITHIN: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a document in a cluster: each is empty if there is nothing to say.

    ``schema``: why the API server refuses it. ``webhook``: why Istio's webhook does.
    """

    schema: str = ""
    webhook: str = ""
    warning: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it may be in a cluster."""
        return not self.schema and not self.webhook


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A workload. ``kind`` is ``sidecar``, ``router`` or ``waypoint``; ``service`` what a waypoint is asked for."""

    namespace: str
    labels: Mapping[str, str]
    kind: str = "sidecar"
    service: Json | None = None
    ports: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What Istio makes for one workload: filters in the order of its chains, and the modes of mTLS."""

    http: Sequence[Json]
    tcp: Sequence[Json]
    mode: str
    ports: Mapping[int, Json]


class Oracle:
    """One process, which answers as long as the context is entered."""

    def __init__(self, program: Program) -> None:
        command = [str(program.file), "--crds", str(program.crds)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | _QUIET, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(_STOPS_WITHIN)

    def verdicts(self, documents: Sequence[str]) -> list[Verdict]:
        """What Istio says of each document, a text of YAML."""
        return [Verdict(**each) for each in self._ask({"documents": documents})["documents"]]

    def make(
        self,
        documents: Sequence[Json],
        workloads: Sequence[Asked],
        mesh: Mesh,
        providers: Sequence[Json] = (),
        services: Sequence[Json] = (),
    ) -> tuple[list[Verdict], list[Made]]:
        """What Istio makes of those documents that it accepts, for each workload."""
        config: Json = {"rootNamespace": mesh.root_namespace, "extensionProviders": list(providers)}
        config |= {"trustDomain": mesh.trust_domain, "trustDomainAliases": list(mesh.aliases)}
        question = {
            "mesh": config,
            "services": services,
            "documents": [json.dumps(document) for document in documents],  # JSON is YAML, without its surprises
            "workloads": [_asked(each) for each in workloads],
        }
        answer = self._ask(question)
        return [Verdict(**each) for each in answer["documents"]], [_made(each) for each in answer["workloads"]]

    def _ask(self, question: Json) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(question)}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Istio's code ended with {self._process.wait(_STOPS_WITHIN)}; see above")
        return json.loads(line)


def _asked(workload: Asked) -> Json:
    return {
        "namespace": workload.namespace,
        "labels": dict(workload.labels),
        "type": workload.kind,
        "service": workload.service,
        "ports": list(workload.ports),
    }


def _made(answer: Json) -> Made:
    ports = {int(number): each for number, each in answer["ports"].items()}
    return Made(http=answer["http"], tcp=answer["tcp"], mode=answer["mode"], ports=ports)
