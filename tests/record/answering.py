"""Answers to be recorded, as a checker tells them."""

from typing import Any, Final

from countersign.core.decision import Allow, AllowReason, DryRun, Mutations, PolicyRef, Reason
from countersign.core.identity import VerifiedToken
from countersign.core.spiffe import SpiffeId
from countersign.edge.observed import Answered, Stages
from countersign.judgement import Judgement, Step, deny
from countersign.policy.workload import Workload
from countersign.wire import auth_pb2 as pb

from tests.edge.serving import request

READERS: Final = PolicyRef(id="ns[apps]-policy[readers]-rule[3]", source="p.yaml:6")
TRIED: Final = PolicyRef(id="ns[apps]-policy[tried]-rule[0]", source="t.yaml:2")
ALLOW: Final = Allow(
    reason=AllowReason.RULE_MATCHED,
    policy=READERS,
    mutations=Mutations(),
    generation=7,
    audit=TRIED,
    dry_run=DryRun(reason=Reason.DENY_RULE_MATCHED, policy=TRIED),
)
DENY: Final = deny(Reason.NO_ALLOW_RULE_MATCHED, "nearest: x", None, 7)
SLEEP: Final = "spiffe://cluster.local/ns/apps/sa/sleep"
ALICE: Final = VerifiedToken(
    claims={"iss": "https://idp", "sub": "alice"}, issuer="https://idp", subject="alice", expires_at=None
)
HTTPBIN: Final = Workload("apps", (("app", "httpbin"),), gateway="edge")


def judged(decision: Any = ALLOW) -> Judgement:
    """What a whole pipeline found."""
    return Judgement(step=Step.POLICIES, decision=decision, workload=HTTPBIN, peer=SpiffeId.parse(SLEEP), token=ALICE)


def answered(payload: bytes | None = None, decision: Any = ALLOW, number: int = 0, **changed: Any) -> Answered:
    """An answer, to a plain request unless another is given."""
    return Answered(
        id=f"0123456789abcdef-{number:011x}",
        at=1_800_000_000.25,
        payload=request().SerializeToString() if payload is None else payload,
        judged=judged(decision),
        remembered=False,
        stages=Stages(read=0.00001, decide=0.00002, wait=0.5, encode=0.000003),
    )._replace(**changed)


def full_request(**headers: str) -> pb.CheckRequest:
    """A request with everything that a record can have."""
    message = request(path="/a/b", headers={"x-request-id": "r-1", "traceparent": PARENT, **headers})
    attributes = message.attributes
    attributes.source.address.socket_address.port_value = 40000
    attributes.destination.address.socket_address.address = "10.0.0.9"
    attributes.destination.principal = "spiffe://cluster.local/ns/apps/sa/httpbin"
    attributes.tls_session.sni = "httpbin.apps"
    return message


TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
SPAN: Final = "b7ad6b7169203331"
PARENT: Final = f"00-{TRACE}-{SPAN}-01"
