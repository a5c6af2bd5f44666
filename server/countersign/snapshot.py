"""What a check is decided by: the mesh as the settings describe it, policies, keys. Immutable, and swapped as one."""

from collections.abc import Mapping
from dataclasses import dataclass

from countersign.core.identity import XFCC_HEADER, PeerRules
from countersign.core.jwt_rule import KeySource
from countersign.core.posture import Posture
from countersign.core.remote_ip import headers_read as remote_ip_headers
from countersign.policy.scope import PolicySet
from countersign.tokens.authenticate import headers_read as token_headers
from countersign.tokens.cache import TokenCache
from countersign.tokens.keys import KeySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """How requests are read. ``namespace`` and ``labels`` are the workload's where the request does not say."""

    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    root_namespace: str = "istio-system"
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    remote_ip_hops: int = 0
    remote_ip_header: str = ""
    peer: PeerRules = PeerRules()  # noqa: RUF009 (frozen)
    posture: Posture = Posture.STRICT

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """Every name of the local mesh."""
        return (self.trust_domain, *self.trust_domain_aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a check reads, immutable and swapped as one. ``policies`` is None until a set has loaded.

    ``tokens`` is not immutable, but changes no decision: it only remembers what was verified.
    """

    mesh: Mesh
    policies: PolicySet | None
    keys: Mapping[KeySource, KeySet]
    tokens: TokenCache | None = None


def headers_read(mesh: Mesh, policies: PolicySet) -> frozenset[str]:
    """The (lower-case) names of all headers at which a decision about HTTP may look, whatever the workload."""
    rules = (rule for resource in policies.resources.request_authentications for rule in resource.rules)
    of_address = remote_ip_headers(mesh.remote_ip_hops, mesh.remote_ip_header)
    return frozenset({XFCC_HEADER}) | of_address | token_headers(rules) | policies.headers_read
