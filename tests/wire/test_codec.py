"""Bytes to facts and decisions to bytes, read back by an independent codec (envoy-data-plane, betterproto2)."""

import base64
import copy
import random
from collections.abc import Callable
from typing import Any, Final

import pytest
from countersign.core.decision import Allow, AllowReason, Decision, Deny, DryRun, Mutations, PolicyRef, Reason
from countersign.core.facts import RequestFacts, is_readable
from countersign.wire import auth_pb2 as pb
from countersign.wire import codec
from countersign.wire.codec import METHOD, SERVICE, RequestError, decode, encode
from google.protobuf import json_format, struct_pb2

from tests.support import vectors
from tests.support.envoy_data_plane import auth, core

POLICY: Final = PolicyRef(id="ns[apps]-policy[users]-rule[2]", source="policies/users.yaml:17")
# What a request must have to be decoded at all.
HTTP: Final = auth.AttributeContextHttpRequest(method="GET", path="/", host="shop.example", headers={":method": "GET"})


def _request(http: auth.AttributeContextHttpRequest | None = HTTP, **attributes: Any) -> bytes:
    request = None if http is None else auth.AttributeContextRequest(http=http)
    return bytes(auth.CheckRequest(attributes=auth.AttributeContext(request=request, **attributes)))


def _raw_headers(*lines: core.HeaderValue) -> bytes:
    http = auth.AttributeContextHttpRequest(method="GET", path="/", header_map=core.HeaderMap(headers=list(lines)))
    return _request(http)


def _reason(payload: bytes) -> Reason:
    with pytest.raises(RequestError) as refused:
        decode(payload)
    return refused.value.reason


# --- what Envoy sends -----------------------------------------------------------------------------------------------


def test_the_method_is_the_one_in_the_descriptor() -> None:
    service = pb.DESCRIPTOR.services_by_name["Authorization"]

    assert service.full_name == SERVICE
    assert f"/{SERVICE}/{service.methods[0].name}" == METHOD


def test_every_recorded_request_of_envoy_reads_as_envoy_data_plane_reads_it() -> None:
    rows = vectors.json_lines("checkrequests/envoy-1.40.jsonl")

    assert len(rows) == 82
    for row in rows:
        theirs = auth.CheckRequest.from_dict(copy.deepcopy(row))
        ours = json_format.ParseDict(row, pb.CheckRequest())
        assert ours.SerializeToString(deterministic=True) == _canonical(bytes(theirs))
        _assert_same(decode(bytes(theirs)), theirs)
        _assert_same(decode(ours.SerializeToString()), auth.CheckRequest.parse(ours.SerializeToString()))


def test_every_recorded_request_survives_our_codec_unchanged() -> None:
    for row in vectors.json_lines("checkrequests/envoy-1.40.jsonl"):
        payload = bytes(auth.CheckRequest.from_dict(copy.deepcopy(row)))
        rewritten = pb.CheckRequest.FromString(payload).SerializeToString()

        assert auth.CheckRequest.parse(rewritten) == auth.CheckRequest.parse(payload)


def _canonical(payload: bytes) -> bytes:
    return pb.CheckRequest.FromString(payload).SerializeToString(deterministic=True)


def _assert_same(facts: RequestFacts, request: auth.CheckRequest) -> None:
    attributes = request.attributes
    assert attributes is not None
    assert attributes.request is not None
    http = attributes.request.http
    assert http is not None
    assert facts.http is not None
    assert (facts.http.method, facts.http.path) == (http.method, http.path)
    assert (facts.http.host, facts.http.scheme) == (http.host, http.scheme)
    if http.header_map is not None:
        lines = [(line.key, line.raw_value.decode("utf-8", "surrogateescape")) for line in http.header_map.headers]
        assert not facts.http.headers.joined
    else:
        lines = list(http.headers.items())
        assert facts.http.headers.joined
    for name in {name for name, _ in lines}:
        assert facts.http.headers.values(name) == tuple(value for other, value in lines if other == name)
    assert sorted(facts.http.headers.names()) == sorted({name for name, _ in lines})
    for ours, theirs in ((facts.source, attributes.source), (facts.destination, attributes.destination)):
        assert theirs is not None
        assert theirs.address is not None
        socket = theirs.address.socket_address
        assert socket is not None
        assert (ours.address, ours.port) == (socket.address, socket.port_value)
        assert (ours.principal, ours.certificate) == (theirs.principal, theirs.certificate)
        assert dict(ours.labels) == theirs.labels
    assert facts.sni == (attributes.tls_session.sni if attributes.tls_session is not None else None)
    assert dict(facts.context_extensions) == attributes.context_extensions


def test_sni_labels_and_context_extensions_are_read() -> None:
    payload = _request(
        tls_session=auth.AttributeContextTlsSession(sni="shop.example"),
        context_extensions={"workload.namespace": "apps"},
        destination=auth.AttributeContextPeer(labels={"app": "shop"}, principal="spiffe://td/ns/apps/sa/shop"),
    )

    facts = decode(payload)

    assert facts.sni == "shop.example"
    assert dict(facts.context_extensions) == {"workload.namespace": "apps"}
    assert dict(facts.destination.labels) == {"app": "shop"}
    assert facts.destination.principal == "spiffe://td/ns/apps/sa/shop"


@pytest.mark.parametrize(
    ("sent", "read"), [("Shop.EXAMPLE", "shop.example"), ("shop.example", "shop.example"), ("", "")]
)
def test_a_server_name_is_in_lower_case_as_envoys_own_filters_see_it(sent: str, read: str) -> None:
    """Else a client would write a name in capitals to get around a DENY."""
    assert decode(_request(tls_session=auth.AttributeContextTlsSession(sni=sent))).sni == read


def test_a_server_name_is_none_where_there_is_none_and_unknown_where_envoy_does_not_say() -> None:
    assert decode(_request(tls_session=auth.AttributeContextTlsSession())).sni == ""
    assert decode(_request()).sni is None


def test_metadata_of_other_filters_reads_like_a_mapping() -> None:
    request = pb.CheckRequest.FromString(_request())
    metadata = request.attributes.metadata_context.filter_metadata["envoy.filters.http.lua"]
    metadata.update({"role": "admin", "roles": ["user", "admin"], "level": 5, "deep": {"a": "b"}})

    read = decode(request.SerializeToString()).metadata

    assert list(read) == ["envoy.filters.http.lua"]
    assert read.get("envoy.filters.http.rbac") is None
    found = read["envoy.filters.http.lua"]
    assert (found["role"], list(found["roles"]), found["level"], dict(found["deep"])) == (
        "admin",
        ["user", "admin"],
        5.0,
        {"a": "b"},
    )
    assert "other" not in found


def test_looking_for_metadata_writes_none() -> None:
    """A protobuf map makes an entry for whatever is subscripted: reading must not."""
    facts = decode(_request())

    assert facts.metadata.get("envoy.filters.http.lua") is None
    assert list(facts.metadata) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (core.Address(socket_address=core.SocketAddress(address="::1", port_value=65535)), ("::1", 65535)),
        (core.Address(socket_address=core.SocketAddress(address="10.0.0.1", named_port="http")), ("10.0.0.1", 0)),
        (core.Address(pipe=core.Pipe(path="/run/app.sock")), ("", 0)),
        (core.Address(envoy_internal_address=core.EnvoyInternalAddress(server_listener_name="l")), ("", 0)),
        (None, ("", 0)),
    ],
)
def test_an_address_without_ip_or_port_is_empty_not_invented(
    address: core.Address | None, expected: tuple[str, int]
) -> None:
    facts = decode(_request(source=auth.AttributeContextPeer(address=address)))

    assert (facts.source.address, facts.source.port) == expected


def test_raw_headers_keep_every_line_apart_and_in_order() -> None:
    payload = _raw_headers(
        core.HeaderValue(key="x-role", raw_value=b"user"), core.HeaderValue(key="X-Role", raw_value=b"admin")
    )

    http = decode(payload).http

    assert http is not None
    assert http.headers.values("x-role") == ("user", "admin")
    assert not http.headers.joined


def test_lines_of_a_name_are_found_whatever_their_case_and_whatever_stands_between() -> None:
    lines = [("X-Role", b"admin"), ("x-other", b"1"), ("x-role", b"user")]

    http = decode(_raw_headers(*(core.HeaderValue(key=key, raw_value=value) for key, value in lines))).http

    assert http is not None
    assert http.headers.values("x-role") == ("admin", "user")
    assert list(http.headers.names()) == ["x-role", "x-other"]


@pytest.mark.parametrize("name", ["X-Role", "x-role"])
def test_a_joined_header_is_found_whatever_the_case_of_its_name(name: str) -> None:
    http = decode(
        _request(auth.AttributeContextHttpRequest(method="GET", path="/", headers={name: "admin", "a": "b"}))
    ).http

    assert http is not None
    assert http.headers.values("x-role") == ("admin",)
    assert http.headers.values("x-none") == ()
    assert (set(http.headers.names()), len(http.headers)) == ({"x-role", "a"}, 2)
    assert http.headers.joined


def test_looking_for_a_joined_header_makes_none() -> None:
    http = decode(_request(auth.AttributeContextHttpRequest(method="GET", path="/", headers={"a": "b"}))).http

    assert http is not None
    assert http.headers.values("x-none") == ()
    assert list(http.headers.names()) == ["a"]


def test_a_raw_value_that_is_not_utf_8_keeps_its_bytes_and_is_not_readable() -> None:
    payload = _raw_headers(core.HeaderValue(key="x-role", raw_value=b"admin\xff"))

    http = decode(payload).http

    assert http is not None
    (value,) = http.headers.values("x-role")
    assert value.encode("utf-8", "surrogateescape") == b"admin\xff"
    assert not is_readable(value)


def test_the_text_value_of_a_raw_header_counts_where_it_has_no_bytes() -> None:
    http = decode(_raw_headers(core.HeaderValue(key="x-role", value="admin"))).http

    assert http is not None
    assert http.headers.values("x-role") == ("admin",)


def test_a_network_filter_asks_without_http() -> None:
    assert decode(_request(None, source=auth.AttributeContextPeer(principal="p"))).http is None
    assert decode(b"\x0a\x00").http is None  # attributes, but none of them set


def test_unknown_fields_alone_do_not_refuse_a_request() -> None:
    unknown_varint, unknown_text = b"\xf8\x3f\x01", b"\xfa\x3f\x03abc"  # field 1023

    facts = decode(unknown_varint + _request() + unknown_text)

    assert facts.http is not None
    assert facts.http.host == "shop.example"


# --- what no Envoy sends ----------------------------------------------------------------------------------------------


def _nested(levels: int) -> struct_pb2.Struct:
    value = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    for _ in range(levels):
        value = struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"a": value}))
    return struct_pb2.Struct(fields={"a": value})


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.REQUEST_INCOMPLETE),
        (b"\xf8\x3f\x01", Reason.REQUEST_INCOMPLETE),
        (_request(auth.AttributeContextHttpRequest(method="GET", path="/")), Reason.REQUEST_INCOMPLETE),
        (_raw_headers(), Reason.REQUEST_INCOMPLETE),
        (b"\xff", Reason.REQUEST_MALFORMED),
        (b"\x0a\xff\xff\xff\xff\x0f", Reason.REQUEST_MALFORMED),
        (b"\x00\x00", Reason.REQUEST_MALFORMED),
        (b"GET / HTTP/1.1\r\n\r\n", Reason.REQUEST_MALFORMED),
    ],
)
def test_bytes_that_are_no_check_are_refused_with_the_reason(payload: bytes, reason: Reason) -> None:
    assert _reason(payload) is reason


def _invalid_utf_8(find: bytes, replace: bytes) -> bytes:
    payload = _request(
        auth.AttributeContextHttpRequest(
            method="MMMM", path="/PPPP", host="HHHH", scheme="SSSS", headers={"KKKK": "VVVV"}
        ),
        source=auth.AttributeContextPeer(principal="NNNN", certificate="CCCC", labels={"LLLL": "WWWW"}),
        context_extensions={"EEEE": "XXXX"},
        tls_session=auth.AttributeContextTlsSession(sni="TTTT"),
    )
    assert payload.count(find) == 1
    return payload.replace(find, replace)


@pytest.mark.parametrize("field", list("MPHSKVNCLWEXT"))
@pytest.mark.parametrize("octets", [b"\xff\xfe\xff\xfe", b"\xc3\xc3\xc3\xc3", b"\xed\xa0\x80A", b"\xc0\xafAA"])
def test_invalid_utf_8_in_any_string_is_refused(field: str, octets: bytes) -> None:
    find = field.encode() * 4

    assert _reason(_invalid_utf_8(find, octets)) is Reason.REQUEST_MALFORMED
    assert decode(_invalid_utf_8(find, "é€\u200b"[:1].encode() * 2)).http is not None


@pytest.mark.parametrize("levels", [101, 1000])
def test_deeply_nested_metadata_is_refused(levels: int) -> None:
    inner = b""
    for _ in range(levels):  # by hand: a Struct in a Value in a map entry, again and again
        value = b"\x2a" + _varint(len(inner)) + inner
        entry = b"\x0a\x01a\x12" + _varint(len(value)) + value
        inner = b"\x0a" + _varint(len(entry)) + entry
    metadata = b"\x0a\x01m\x12" + _varint(len(inner)) + inner
    context = b"\x0a" + _varint(len(metadata)) + metadata
    attributes = b"\x5a" + _varint(len(context)) + context

    assert _reason(b"\x0a" + _varint(len(attributes)) + attributes + _request()) is Reason.REQUEST_MALFORMED


def test_shallow_metadata_is_not_looked_at() -> None:
    request = pb.CheckRequest.FromString(_request())
    request.attributes.metadata_context.filter_metadata["m"].CopyFrom(_nested(5))

    assert decode(request.SerializeToString()).http is not None


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def test_every_truncation_is_refused_or_reads_as_less() -> None:
    payload = _request(source=auth.AttributeContextPeer(principal="spiffe://td/ns/a/sa/b"))

    for length in range(len(payload)):
        assert _reason(payload[:length]) in {Reason.REQUEST_MALFORMED, Reason.REQUEST_INCOMPLETE}
    assert decode(payload).http is not None


def test_random_bytes_are_decoded_or_refused_and_nothing_else_happens() -> None:
    chance = random.Random(20261122)  # noqa: S311 (reproducible bytes)
    payload = _request()

    for _ in range(3000):
        octets = bytearray(payload if chance.random() < 0.7 else chance.randbytes(chance.randrange(60)))
        for _ in range(chance.randrange(4)):
            if octets:
                octets[chance.randrange(len(octets))] = chance.randrange(256)
        try:
            decode(bytes(octets))
        except RequestError as error:
            assert error.reason in {Reason.REQUEST_MALFORMED, Reason.REQUEST_INCOMPLETE}  # noqa: PT017


# --- what Envoy is told -----------------------------------------------------------------------------------------------


def _deny(reason: Reason, status: int = 403, **more: Any) -> Deny:
    return Deny(reason=reason, status=status, body="no", **more)


def _allow(mutations: Mutations | None = None, reason: AllowReason = AllowReason.RULE_MATCHED, **more: Any) -> Allow:
    more = {"policy": POLICY, "generation": 3, **more}
    return Allow(reason=reason, mutations=Mutations() if mutations is None else mutations, **more)


def _read(decision: Decision) -> auth.CheckResponse:
    payload = encode(decision)
    response = auth.CheckResponse.parse(payload)
    assert pb.CheckResponse.FromString(payload).SerializeToString(deterministic=True) == pb.CheckResponse.FromString(
        bytes(response)
    ).SerializeToString(deterministic=True)
    return response


def _metadata(response: auth.CheckResponse) -> dict[str, Any]:
    assert response.dynamic_metadata is not None
    return {
        name: value.string_value if value.string_value is not None else value.number_value
        for name, value in response.dynamic_metadata.fields.items()
    }


@pytest.mark.parametrize("status", [400, 401, 403, 503])
@pytest.mark.parametrize("reason", Reason)
def test_a_denial_of_every_reason_is_an_explicit_denial(reason: Reason, status: int) -> None:
    response = _read(_deny(reason, status, policy=POLICY, headers=(("x-why", "it"),), detail="more", generation=9))

    assert response.status is not None
    assert response.status.code == (16 if status == 401 else 7)
    assert response.ok_response is None
    assert response.error_response is None
    denied = response.denied_response
    assert denied is not None
    assert denied.status is not None
    assert (int(denied.status.code), denied.body) == (status, "no")
    assert _options(denied.headers) == [
        ("x-why", "it", core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD)
    ]
    assert _metadata(response) == {
        "decision": "DENY",
        "reason": str(reason),
        "policy": POLICY.id,
        "source": POLICY.source,
        "detail": "more",
        "generation": 9.0,
    }


@pytest.mark.parametrize("reason", AllowReason)
def test_an_allowance_of_every_reason_has_status_ok_written_out(reason: AllowReason) -> None:
    response = _read(_allow(reason=reason))

    assert pb.CheckResponse.FromString(encode(_allow(reason=reason))).HasField("status")
    assert response.status is not None
    assert response.status.code == 0
    assert response.ok_response is not None
    assert response.denied_response is None
    assert response.error_response is None
    assert _metadata(response) == {
        "decision": "ALLOW",
        "reason": str(reason),
        "policy": POLICY.id,
        "source": POLICY.source,
        "generation": 3.0,
    }


STOP: Final = PolicyRef(id="ns[apps]-policy[stop]-rule[0]", source="policies/stop.yaml:3")


@pytest.mark.parametrize("decide", [_allow, lambda **more: _deny(Reason.NO_ALLOW_RULE_MATCHED, **more)])
def test_an_audited_or_tried_policy_is_named_to_the_access_log(decide: Callable[..., Decision]) -> None:
    dry_run = DryRun(reason=Reason.DENY_RULE_MATCHED, policy=STOP)

    audited, tried, plain = (
        _read(decide(**more)).dynamic_metadata for more in ({"audit": STOP}, {"dry_run": dry_run}, {})
    )

    assert audited is not None
    assert audited.fields["audit"].string_value == STOP.id
    assert "dry_run" not in audited.fields
    assert tried is not None
    assert "audit" not in tried.fields
    found = tried.fields["dry_run"].struct_value
    assert found is not None
    assert {name: value.string_value for name, value in found.fields.items()} == {
        "decision": "DENY",
        "reason": "deny-rule-matched",
        "policy": STOP.id,
    }
    assert plain is not None
    assert not {"audit", "dry_run"} & plain.fields.keys()


@pytest.mark.parametrize(
    ("reason", "decision"),
    [
        (AllowReason.NO_ALLOW_POLICY, "ALLOW"),
        (AllowReason.RULE_MATCHED, "ALLOW"),
        (Reason.NO_ALLOW_RULE_MATCHED, "DENY"),
    ],
)
def test_what_a_dry_run_would_decide_is_said_without_a_policy_too(reason: AllowReason | Reason, decision: str) -> None:
    metadata = _read(_deny(Reason.DENY_RULE_MATCHED, dry_run=DryRun(reason=reason, policy=None))).dynamic_metadata

    assert metadata is not None
    found = metadata.fields["dry_run"].struct_value
    assert found is not None
    assert {name: value.string_value for name, value in found.fields.items()} == {
        "decision": decision,
        "reason": str(reason),
    }
    assert metadata.fields["decision"].string_value == "DENY"  # whatever is tried, the answer is the answer


def test_a_decision_without_policy_or_detail_says_nothing_of_them() -> None:
    assert _metadata(_read(_deny(Reason.NO_POLICIES))).keys() == {"decision", "reason", "generation"}
    assert _metadata(_read(_allow(policy=None))).keys() == {"decision", "reason", "generation"}


def _options(options: list[core.HeaderValueOption]) -> list[tuple[str, str, Any]]:
    return [
        (option.header.key, option.header.value, option.append_action)
        for option in options
        if option.header is not None
    ]


@pytest.mark.filterwarnings("ignore:HeaderValueOption.append is deprecated")  # but it is what Envoy looks at
def test_the_first_line_of_a_set_header_overwrites_and_the_others_append() -> None:
    actions = core.HeaderValueOptionHeaderAppendAction
    mutations = Mutations(
        set_headers=(("x-sub", "a"), ("x-role", "b"), ("x-role", "c")),
        remove_headers=("authorization", "x-old"),
        remove_query_parameters=("access_token",),
    )

    ok = _read(_allow(mutations)).ok_response

    assert ok is not None
    assert _options(ok.headers) == [
        ("x-sub", "a", actions.OVERWRITE_IF_EXISTS_OR_ADD),
        ("x-role", "b", actions.OVERWRITE_IF_EXISTS_OR_ADD),
        ("x-role", "c", actions.APPEND_IF_EXISTS_OR_ADD),
    ]
    assert [bool(option.append) for option in ok.headers] == [False, False, True]
    assert ok.headers_to_remove == ["authorization", "x-old"]
    assert ok.query_parameters_to_remove == ["access_token"]
    assert not ok.response_headers_to_add
    assert not ok.query_parameters_to_set


def test_answers_that_are_remembered_are_not_mistaken_for_each_other() -> None:
    other = PolicyRef(id="other", source=POLICY.source)
    decisions: list[Decision] = [
        _allow(),
        _allow(policy=other),
        _allow(generation=4),
        _allow(reason=AllowReason.NO_ALLOW_POLICY),
        _allow(Mutations(remove_headers=("authorization",))),
        _allow(Mutations(remove_query_parameters=("authorization",))),
        _allow(Mutations(set_headers=(("x-user", "alice"),))),
        _allow(Mutations(set_headers=(("x-user", "bob"),))),
        _allow(audit=POLICY),
        _allow(dry_run=DryRun(reason=Reason.DENY_RULE_MATCHED, policy=None)),
        _deny(Reason.DENY_RULE_MATCHED),
        _deny(Reason.DENY_RULE_MATCHED, detail="more"),
        _deny(Reason.DENY_RULE_MATCHED, detail="m" * 1000),
        _deny(Reason.DENY_RULE_MATCHED, headers=(("a", "b"),)),
    ]

    first = [encode(decision) for decision in decisions]

    assert len(set(first)) == len(decisions)
    assert [encode(decision) for decision in reversed(decisions)] == first[::-1]


def test_what_is_remembered_is_bounded() -> None:
    for generation in range(3000):
        encode(_allow(generation=generation))
        encode(_allow(Mutations(set_headers=(("x", str(generation)),))))
    kept = codec._remembered.cache_info()

    assert kept.currsize == kept.maxsize == 1024
    before = kept.misses
    encode(_allow(Mutations(set_headers=(("x", "y"),))))  # a user's own: never kept
    encode(_deny(Reason.PEER_MALFORMED, detail="d" * 257))
    assert codec._remembered.cache_info().misses == before


TEXTS: Final[tuple[Callable[[str], Decision], ...]] = (
    lambda text: _deny(Reason.PEER_MALFORMED, detail=text),
    lambda text: _deny(Reason.PEER_MALFORMED, policy=PolicyRef(id="p", source=text)),
    lambda text: _allow(policy=PolicyRef(id="p", source=text)),
    lambda text: _allow(policy=None, audit=PolicyRef(id=text, source="s")),
)


@pytest.mark.parametrize("decision", TEXTS)
def test_text_that_protobuf_cannot_carry_is_escaped_in_the_log_not_fatal(decision: Callable[[str], Decision]) -> None:
    """A lone surrogate stands for a byte that is not UTF-8: from a header, or from a file name."""
    assert "caf\\udce9" in _metadata(_read(decision("caf\udce9"))).values()
    assert "café" in _metadata(_read(decision("café"))).values()


def test_the_name_of_a_tried_policy_is_escaped_too() -> None:
    policy = PolicyRef(id="caf\udce9", source="s")
    metadata = _read(_allow(dry_run=DryRun(reason=Reason.DENY_RULE_MATCHED, policy=policy))).dynamic_metadata

    assert metadata is not None
    tried = metadata.fields["dry_run"].struct_value
    assert tried is not None
    assert tried.fields["policy"].string_value == "caf\\udce9"


def test_the_answer_is_bytes_that_base64_of_the_recordings_would_show() -> None:
    assert base64.b64encode(encode(_deny(Reason.NO_POLICIES, 503))).startswith(b"CgIIBxI")
