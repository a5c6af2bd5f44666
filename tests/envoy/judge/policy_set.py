"""The policies of one workload, and the mesh that they are all written for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.envoy.judge import peers
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.peers import Modes
from tests.envoy.judge.trust import Mesh, applying

MESH: Final = Mesh(trust_domain="cluster.local", aliases=("old.example",), root_namespace="istio-system")
PORTS: Final = {"normalising": 8080, "verbatim": 9090}  # of the listeners; fixed, for policies name them

REFUSING: Final = "refusing"  # a provider that CUSTOM may name; any other is unknown, which Istio takes for a denial
PROVIDERS: Final[Mapping[str, Json]] = {
    REFUSING: {"name": REFUSING, "envoyExtAuthzGrpc": {"service": "refusing.judge.example", "port": 9000}}
}
REFUSALS: Final[Sequence[Json]] = [  # the provider is Countersign too: this is the namespace that it is asked about
    {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "nothing", "namespace": REFUSING},
        "spec": {},
    }
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What somebody else than our translator made of a set: filters by what they are for, in Envoy's JSON."""

    custom: Sequence[Json]
    tokens: Json | None
    local: Sequence[Json]
    tcp: Sequence[Json]
    modes: Modes


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Policies for one workload; the namespace's name is the set's. ``shared``: those that all sets have in common.

    Envoy's own filters are those ``made`` of it, else our translator's.
    """

    name: str
    documents: Sequence[Json]
    shared: Sequence[Json] = ()
    tcp: bool = False
    made: Made | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """The workload's: ``set`` lets a policy of the root namespace select this one, on HTTP."""
        return {"app": "web"} if self.tcp else {"app": "web", "set": self.name}

    def applying(self, kind: str) -> list[Json]:
        """The resources that apply to the workload."""
        return applying(self.documents, kind, self.name, dict(self.labels), MESH)

    def modes(self) -> Modes:
        """What PeerAuthentications make of the workload's ports."""
        if self.made is not None:
            return self.made.modes
        policies = [each for each in (*self.shared, *self.documents) if each["kind"] == "PeerAuthentication"]
        return peers.compose(policies, self.name, self.labels, MESH)


Prepare = Callable[[Sequence[PolicySet]], list[PolicySet]]  # says what was made of policy sets, or nothing
