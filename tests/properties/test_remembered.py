"""A check is answered from memory as it would be without: whatever was asked before, in whatever order."""

import json
import random
import time
from typing import Any, Final

from countersign.authorize import authorize
from countersign.core.decision import Reason
from countersign.core.identity import PeerRules, PeerSource
from countersign.core.jwt_rule import HeaderLocation, InlineKeys, JwtRule, KeySource
from countersign.core.posture import Posture
from countersign.edge.check import Checker
from countersign.mesh.issuer import Issuer
from countersign.policy.resources import AuthorizationPolicy, Meta, RequestAuthentication, Resources
from countersign.policy.scope import PolicySet
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.keys import KeySet
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import RequestError, decode, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.generated import POLICIES, VALUES

ISSUER: Final = Issuer("https://i.test")
NOW: Final = int(time.time())
KEYS: Final = InlineKeys(json.dumps(ISSUER.jwks()))
TOKENS: Final = (
    "",
    "x.y.z",
    *(
        ISSUER.sign({"iss": "https://i.test", "sub": sub, "exp": NOW + life, **more})
        for sub, life, more in (
            ("s", 3600, {}),
            ("t", 3600, {"a": "a"}),
            ("s", -3600, {}),
            ("s", 3600, {"nbf": NOW + 1800}),
            ("s", 3600, {"cnf": {"x5t#S256": "A" * 43}}),
        )
    ),
)
XFCC: Final = ("", "URI=spiffe://td/ns/a/sa/x", "URI=spiffe://td/ns/b/sa/x", "Hash=00;URI=", "garbage")


def _rule(**more: Any) -> JwtRule:
    return JwtRule(issuer="https://i.test", keys=KEYS, policy="ns/users", source="f:1", **more)


RULES: Final = (
    (),
    (_rule(),),
    (_rule(from_headers=(HeaderLocation("x-token"),), from_cookies=("t",), output_payload_to_header="x-a"),),
    (_rule(from_params=("t",), forward_original_token=True),),
)

EXTRAS: Final = st.fixed_dictionaries(
    {
        "authorization": st.sampled_from(TOKENS),
        "x-token": st.sampled_from(TOKENS),
        "cookie": st.sampled_from(TOKENS),
        "parameter": st.sampled_from(("", "?t=", "?access_token=")),
        "client": st.sampled_from(XFCC),
        "origin": st.booleans(),
        "options": st.booleans(),
        "upper": st.booleans(),
    }
)


def _message(values: dict[str, Any], extras: dict[str, Any], noise: int) -> pb.CheckRequest:
    message = pb.CheckRequest()
    attributes = message.attributes
    for peer, address, port, principal in (
        (attributes.source, values["source"], noise, values["principal"]),
        (attributes.destination, values["destination"], values["port"], "spiffe://td/ns/ns/sa/w"),
    ):
        peer.address.socket_address.address = address
        peer.address.socket_address.port_value = port
        peer.principal = principal
    if values["sni"] is not None:
        attributes.tls_session.sni = values["sni"]
    written = attributes.metadata_context.filter_metadata["envoy.filters.http.f"]
    written.update({"k": values["written"]})
    http = attributes.request.http
    token = extras["parameter"] and extras["parameter"] + extras["authorization"]
    http.id, http.method = str(noise), "OPTIONS" if extras["options"] else values["method"]
    http.path, http.host, http.scheme = values["path"].partition("?")[0] + token, values["host"], "https"
    lines = [(":path", http.path), (":method", http.method), (":authority", http.host), ("x-noise", str(noise))]
    lines += [("X-A" if extras["upper"] else "x-a", line) for line in values["x-a"]]
    lines += [("x-b", line) for line in values["x-b"]]
    lines += [("x-forwarded-for", line) for line in values["xff"]]
    lines += [("authorization", f"Bearer {extras['authorization']}")] if extras["authorization"] else []
    lines += [("x-token", extras["x-token"])] if extras["x-token"] else []
    lines += [("cookie", f"t={extras['cookie']}")] if extras["cookie"] else []
    lines += [("x-forwarded-client-cert", extras["client"])] if extras["client"] else []
    lines += [("origin", "o"), ("access-control-request-method", "GET")] if extras["origin"] else []
    if values["joined"]:
        for name, value in lines:
            text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            http.headers[name] = f"{http.headers[name]},{text}" if name in http.headers else text
    else:
        for name, value in lines:
            http.header_map.headers.add(key=name, raw_value=value.encode("utf-8", "surrogateescape"))
    return message


def _without_memory(payload: bytes, snapshot: Snapshot) -> bytes:
    try:
        facts = decode(payload)
    except RequestError as error:
        raise AssertionError("a sound request") from error
    return encode(authorize(facts, snapshot, time.time(), may_wait=False).decision)


def _in_time(checker: Checker, payload: bytes) -> bytes:
    """The answer; where the machine was so busy that it came late, that to the same question once more."""
    answer = checker.answer(payload, None)
    assert isinstance(answer, bytes), "the answer waits, but nothing here is fetched"
    return _in_time(checker, payload) if Reason.DEADLINE_PASSED.encode() in answer else answer


def _mesh(posture: Posture, client: tuple[int, str], source: PeerSource) -> Mesh:
    return Mesh(
        trust_domain="td",
        trust_domain_aliases=("old",),
        root_namespace="root",
        namespace="ns",
        posture=posture,
        remote_ip_hops=client[0],
        remote_ip_header=client[1],
        peer=PeerRules(source=source),
    )


@settings(max_examples=300, deadline=None)
@given(
    POLICIES,
    st.sampled_from(RULES),
    st.lists(st.tuples(VALUES, EXTRAS), min_size=1, max_size=4),
    st.builds(
        _mesh, st.sampled_from(Posture), st.sampled_from([(0, ""), (1, ""), (0, "x-b")]), st.sampled_from(PeerSource)
    ),
    st.randoms(use_true_random=False),
)
def test_an_answer_from_memory_is_the_answer(
    policies: tuple[AuthorizationPolicy, ...],
    rules: tuple[JwtRule, ...],
    asked: list[tuple[dict[str, Any], dict[str, Any]]],
    mesh: Mesh,
    order: random.Random,
) -> None:
    users = RequestAuthentication(meta=Meta(name="users", namespace="ns", source="f:1"), rules=rules)
    resources = Resources(authorization_policies=policies, request_authentications=(users,))
    keys: dict[KeySource, KeySet] = {KEYS: KeySet.parse(KEYS.jwks)}
    snapshot = Snapshot(mesh=mesh, policies=PolicySet(resources, "root", 1), keys=keys)

    def fail(error: Exception) -> None:
        raise error

    checker = Checker(lambda: snapshot, lambda _: None, fail)
    for values, extras in order.choices(asked, k=2 * len(asked)) + asked:
        payload = _message(values, extras, order.randrange(1, 60000)).SerializeToString()
        assert _in_time(checker, payload) == _without_memory(payload, snapshot)
