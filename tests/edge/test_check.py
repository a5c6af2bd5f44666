"""Whatever goes wrong, the answer is an explicit denial with gRPC status OK (requirements A01 to A06)."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from countersign import authorize as pipeline
from countersign.core.jwt_rule import FetchedKeys, RemoteKeys
from countersign.edge import check, remembered
from countersign.edge.transport import Transport
from countersign.mesh.issuer import Issuer
from countersign.snapshot import Snapshot
from countersign.tokens.keys import KeySet
from countersign.wire import auth_pb2 as pb
from countersign.wire import outline

from tests.edge.serving import Serving, reason, request, snapshot, status_of

FAULTS = [Exception, RecursionError, MemoryError, UnicodeError, OverflowError, AttributeError]
ISSUER = "https://issuer.test"
REMOTE = RemoteKeys("http://127.0.0.1:1/jwks.json", 5.0)


@pytest.fixture
def serving(tmp_path: Path, transport: Transport) -> Iterator[Serving]:
    current = snapshot()
    with Serving(tmp_path, lambda: current, transport=transport) as running:
        yield running


def allowed(response: pb.CheckResponse) -> bool:
    return response.status.code == 0 and response.HasField("ok_response")


def denied(response: pb.CheckResponse, status: int, why: str) -> bool:
    return (
        response.status.code != 0
        and response.HasField("denied_response")
        and response.denied_response.status.code == status
        and reason(response) == why
    )


def test_a_sound_request_that_a_rule_matches_is_allowed(serving: Serving) -> None:
    response = serving.check(request())

    assert allowed(response)
    assert reason(response) == "allow-rule-matched"
    assert response.dynamic_metadata.fields["policy"].string_value == "ns[apps]-policy[readers]-rule[0]"
    assert response.dynamic_metadata.fields["source"].string_value == "policies.yaml:6"


def test_a_sound_request_that_no_rule_matches_is_denied(serving: Serving) -> None:
    response = serving.check(request(method="DELETE"))

    assert denied(response, 403, "no-allow-rule-matched")
    assert response.denied_response.body == "RBAC: access denied"


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff" * 64,
        b"\x0a",
        os.urandom(1024) + b"\xff",
        b"\x0a\x06\x22\x04\x12\x02\x12\x01",
        b"\x0a\x04\x0a\x02\x22\xff",
        b"\x0a\x05\x0a\x03\x22\x01\xff",
    ],
    ids=["no tags", "truncated", "random", "truncated inside", "length beyond the end", "not UTF-8"],
)
def test_bytes_that_are_no_check_request_are_denied(serving: Serving, payload: bytes) -> None:
    assert denied(serving.call(payload), 400, "request-malformed")


def test_metadata_nested_beyond_reason_is_denied_at_once(serving: Serving) -> None:
    message = request()
    value = message.attributes.metadata_context.filter_metadata["a"].fields["a"]
    for _ in range(20):
        value = value.struct_value.fields["a"]
    value.bool_value = True
    assert allowed(serving.check(message))

    nested = b""
    for _ in range(1000):
        field = b"\x12" + _varint(len(nested)) + nested  # Value in an entry of Struct.fields
        entry = b"\x0a" + _varint(len(field) + 3) + b"\x0a\x01a" + field
        nested = b"\x2a" + _varint(len(entry)) + entry  # Value.struct_value
    field = b"\x12" + _varint(len(nested)) + nested
    struct = b"\x0a" + _varint(len(field) + 3) + b"\x0a\x01a" + field
    entry = b"\x0a\x01a\x12" + _varint(len(struct)) + struct
    metadata = b"\x0a" + _varint(len(entry)) + entry
    attributes = b"\x5a" + _varint(len(metadata)) + metadata
    payload = b"\x0a" + _varint(len(attributes)) + attributes
    assert denied(serving.call(payload), 400, "request-malformed")


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _without(part: str) -> pb.CheckRequest:
    message = request()
    match part:
        case "attributes":
            message.ClearField("attributes")
        case "http":
            message.attributes.request.ClearField("http")
        case "request":
            message.attributes.ClearField("request")
        case _:
            message.attributes.request.http.ClearField("headers")
    return message


@pytest.mark.parametrize("part", ["attributes", "request", "http", "headers"])
def test_a_request_without_its_parts_is_denied(serving: Serving, part: str) -> None:
    assert denied(serving.check(_without(part)), 400, "request-incomplete")


def test_a_request_without_a_method_is_denied(serving: Serving) -> None:
    assert denied(serving.check(request(method="")), 400, "request-malformed")


def test_fields_from_a_later_envoy_change_nothing(serving: Serving) -> None:
    unknown = b"\xfa\x3e\x03abc"  # field 999, length-delimited

    assert allowed(serving.call(request().SerializeToString() + unknown))
    assert denied(serving.call(request(method="PUT").SerializeToString() + unknown), 403, "no-allow-rule-matched")


STAGES: list[tuple[Any, str]] = [
    (outline, "is_sound"),
    (remembered, "facts_of"),
    (check, "authorize"),
    (check, "encode"),
    (pipeline, "find_workload"),
    (pipeline, "authenticate_peer"),
    (pipeline, "authenticate"),
    (pipeline, "refuse_unbound"),
    (pipeline, "_compiled"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize(("module", "stage"), STAGES, ids=[stage for _, stage in STAGES])
def test_an_exception_in_any_stage_is_a_denial_that_says_nothing_about_it(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, module: Any, stage: str, fault: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise fault("secret of the inside")

    assert allowed(serving.check(request()))
    monkeypatch.setattr(module, stage, broken)
    response = serving.check(request(path="/never/asked/before"))
    monkeypatch.undo()

    assert denied(response, 503, "internal-error")
    assert b"secret" not in response.SerializeToString()
    assert allowed(serving.check(request()))


def _mesh(field: str, value: Any) -> Callable[[Snapshot], Any]:
    return lambda right: replace(right, mesh=replace(right.mesh, **{field: value}))


def _snapshot(field: str, value: Any) -> Callable[[Snapshot], Any]:
    return lambda right: replace(right, **{field: value})


WRONG: dict[str, Callable[[Snapshot], Any]] = {
    "no snapshot": lambda _: None,
    "mesh": _snapshot("mesh", None),
    "peer": _mesh("peer", None),
    "hops": _mesh("remote_ip_hops", "1"),
    "policies": _snapshot("policies", "none"),
    "keys": _snapshot("keys", None),
    "key set": _snapshot("keys", {REMOTE: "{}"}),
    "token cache": _snapshot("tokens", {}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_value_of_a_wrong_type_on_the_path_of_a_check_is_a_denial(
    tmp_path: Path, transport: Transport, wrong: Callable[[Snapshot], Any]
) -> None:
    """Compiled code looks at types where it is called, and raises where interpreted code may go on for a while."""
    issuer = Issuer(ISSUER)
    current: Any = snapshot(WITH_TOKENS, {REMOTE: KeySet.parse(json.dumps(issuer.jwks()))})
    right, asked = current, bearer(issuer)
    with Serving(tmp_path, lambda: current, transport=transport) as running:
        assert allowed(running.check(asked))
        current = wrong(right)
        assert denied(running.check(asked), 503, "internal-error")
        current = right
        assert allowed(running.check(asked))


def test_a_log_that_fails_changes_no_answer(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise OSError("the disk is full")

    monkeypatch.setattr(check, "_report", broken)
    monkeypatch.setattr(check, "authorize", broken)

    assert denied(serving.check(request()), 503, "internal-error")


def test_a_fault_is_logged_without_its_text(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"eyJhbGciOi.{'token'}.bytes"  # built here, so that no source line in a traceback has it

    def broken(*_: object, **__: object) -> NoReturn:
        raise ValueError(text)

    monkeypatch.setattr(check, "authorize", broken)
    serving.check(request())
    serving.check(request())  # the log is written beside the path of the first, before the second

    assert "ValueError" in caplog.text
    assert "in _decided" in caplog.text
    assert "eyJ" not in caplog.text


def test_a_decision_after_the_deadline_is_never_an_allow(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    original = pipeline.authorize

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(check.BUDGET + 0.01)  # a stage that stalls: the wait is the fault
        return original(*arguments, **named)

    monkeypatch.setattr(check, "authorize", slow)
    response = serving.check(request())
    monkeypatch.undo()

    assert denied(response, 503, "deadline-passed")
    assert allowed(serving.check(request()))


def test_a_caller_in_more_of_a_hurry_than_that_gets_no_allow_after_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = snapshot()
    checker = check.Checker(lambda: current, lambda _: None, _fail)
    paths = iter(("/a", "/b", "/c"))  # each for the first time
    original = pipeline.authorize

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.06)
        return original(*arguments, **named)

    def decided(time_remaining: float) -> pb.CheckResponse:
        answer = checker.answer(request(path=next(paths)).SerializeToString(), time_remaining)
        assert isinstance(answer, bytes)
        return pb.CheckResponse.FromString(answer)

    assert allowed(decided(5.0))
    monkeypatch.setattr(check, "authorize", slow)
    assert denied(decided(0.075), 503, "deadline-passed")
    monkeypatch.setattr(check, "BUDGET", 60.0)
    assert allowed(decided(60.0))


def _fail(error: Exception) -> NoReturn:
    raise error


def test_no_policies_is_a_denial_of_its_own(tmp_path: Path, transport: Transport) -> None:
    current = [Snapshot(mesh=snapshot().mesh, policies=None, keys={})]
    with Serving(tmp_path, lambda: current[0], transport=transport) as serving:
        assert denied(serving.check(request()), 503, "no-policies-loaded")
        current[0] = snapshot()
        assert allowed(serving.check(request()))


@pytest.mark.parametrize(
    "method",
    [
        "/envoy.service.auth.v3.Authorization/check",
        "/envoy.service.auth.v3.Authorization/Check/",
        "/envoy.service.auth.v2.Authorization/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_no_other_method_is_served(serving: Serving, method: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        serving.call(request().SerializeToString(), method=method)

    assert status_of(error.value) == "UNIMPLEMENTED"


WITH_TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules: [{issuer: "https://issuer.test", jwksUri: "http://127.0.0.1:1/jwks.json"}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: users, namespace: apps}
spec:
  rules: [{from: [{source: {requestPrincipals: ["https://issuer.test/*"]}}]}]
"""


class Fetch:
    """What the fetcher does for a held call, under the test's control."""

    def __init__(self, *, permitted: bool = True) -> None:
        self.keys: dict[Any, KeySet] = {}
        self.asked: list[FetchedKeys] = []
        self.waiting = threading.Event()
        self._permitted = permitted
        self._future: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def refresh(self, source: FetchedKeys) -> "asyncio.Future[None] | None":
        self.asked.append(source)
        if not self._permitted:
            return None
        self._loop = asyncio.get_running_loop()
        self._future = self._future or self._loop.create_future()
        self.waiting.set()
        return self._future

    def arrive(self, keys: KeySet) -> None:
        assert self._loop is not None
        assert self._future is not None
        self.keys = {REMOTE: keys}
        self._loop.call_soon_threadsafe(self._future.set_result, None)

    def current(self) -> Snapshot:
        return snapshot(WITH_TOKENS, self.keys)


def bearer(issuer: Issuer) -> pb.CheckRequest:
    token = issuer.sign({"iss": ISSUER, "sub": "alice", "exp": int(time.time()) + 600})
    return request(headers={"authorization": f"Bearer {token}"})


def _in_thread(work: Callable[[], pb.CheckResponse]) -> tuple[threading.Thread, list[pb.CheckResponse]]:
    answers: list[pb.CheckResponse] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    return thread, answers


def test_a_call_is_held_until_its_key_arrives_and_others_are_not(tmp_path: Path, transport: Transport) -> None:
    issuer, fetch = Issuer(ISSUER), Fetch()
    with Serving(tmp_path, fetch.current, fetch.refresh, transport=transport) as serving:
        thread, answers = _in_thread(lambda: serving.check(bearer(issuer)))
        assert fetch.waiting.wait(5)
        assert denied(serving.check(request()), 403, "no-allow-rule-matched")
        fetch.arrive(KeySet.parse(json.dumps(issuer.jwks())))
        thread.join()

    assert allowed(answers[0])
    assert fetch.asked == [REMOTE]


def test_a_key_that_does_not_come_within_the_budget_is_a_denial(tmp_path: Path, transport: Transport) -> None:
    issuer, fetch = Issuer(ISSUER), Fetch()
    with Serving(tmp_path, fetch.current, fetch.refresh, transport=transport) as serving:
        started = time.monotonic()
        response = serving.check(bearer(issuer))

    assert denied(response, 401, "keys-unavailable")
    assert response.denied_response.body == "Jwks remote fetch is failed"
    assert check.BUDGET <= time.monotonic() - started < 1.0


def test_a_token_of_an_unknown_key_is_refused_at_once_where_no_fetch_is_permitted(
    tmp_path: Path, transport: Transport
) -> None:
    issuer, stranger, fetch = Issuer(ISSUER), Issuer(ISSUER), Fetch(permitted=False)
    fetch.keys = {REMOTE: KeySet.parse(json.dumps(issuer.jwks()))}
    with Serving(tmp_path, fetch.current, fetch.refresh, transport=transport) as serving:
        response = serving.check(bearer(stranger))

        assert denied(response, 401, "token-unknown-key")
        assert response.denied_response.body == "Jwks doesn't have key to match kid or alg from Jwt"
        assert allowed(serving.check(bearer(issuer)))


class Deciding:
    """A checker over a snapshot that only the test changes; ``times`` counts how often a request was decided."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fetch: Fetch) -> None:
        self.times = 0
        self.snapshot = fetch.current()
        self._checker = check.Checker(lambda: self.snapshot, fetch.refresh, _fail)
        original = pipeline.authorize

        def counted(*arguments: Any, **named: Any) -> Any:
            self.times += 1
            return original(*arguments, **named)

        monkeypatch.setattr(check, "authorize", counted)

    def check(self, message: pb.CheckRequest, meanwhile: Callable[[], None] = lambda: None) -> pb.CheckResponse:
        """The answer; ``meanwhile`` happens between the first decision and the question for a fetch."""
        answer = self._checker.answer(message.SerializeToString(), 5.0)
        if not isinstance(answer, bytes):
            meanwhile()
            answer = asyncio.run(answer())
        return pb.CheckResponse.FromString(answer)


def test_a_token_whose_key_may_not_be_fetched_is_decided_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer, stranger, fetch = Issuer(ISSUER), Issuer(ISSUER), Fetch(permitted=False)
    fetch.keys = {REMOTE: KeySet.parse(json.dumps(issuer.jwks()))}
    deciding = Deciding(monkeypatch, fetch)

    assert denied(deciding.check(bearer(stranger)), 401, "token-unknown-key")
    assert deciding.times == 1
    assert fetch.asked == [REMOTE]
    assert allowed(deciding.check(bearer(issuer)))


def test_while_no_fetch_is_permitted_made_up_keys_are_refused_without_asking_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer, stranger, fetch = Issuer(ISSUER), Issuer(ISSUER), Fetch(permitted=False)
    fetch.keys = {REMOTE: KeySet.parse(json.dumps(issuer.jwks()))}
    deciding = Deciding(monkeypatch, fetch)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    for _ in range(5):
        assert denied(deciding.check(bearer(stranger)), 401, "token-unknown-key")
    assert fetch.asked == [REMOTE]
    now[0] += check._REST + 0.001  # perhaps one is permitted by now
    assert denied(deciding.check(bearer(stranger)), 401, "token-unknown-key")
    assert fetch.asked == [REMOTE] * 2
    fetch.keys = {REMOTE: KeySet.parse(json.dumps(stranger.jwks()))}
    deciding.snapshot = fetch.current()
    assert denied(deciding.check(bearer(issuer)), 401, "token-unknown-key")  # by other keys: it is asked about again
    assert fetch.asked == [REMOTE] * 3
    assert allowed(deciding.check(bearer(stranger)))


def test_a_key_that_came_before_the_fetcher_was_asked_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer, stranger, fetch = Issuer(ISSUER), Issuer(ISSUER), Fetch(permitted=False)
    fetch.keys = {REMOTE: KeySet.parse(json.dumps(stranger.jwks()))}
    deciding = Deciding(monkeypatch, fetch)

    def arrive() -> None:
        fetch.keys = {REMOTE: KeySet.parse(json.dumps(issuer.jwks()))}
        deciding.snapshot = fetch.current()

    assert allowed(deciding.check(bearer(issuer), arrive))
    assert deciding.times == 2


def test_only_so_many_denials_a_second_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "EXPLANATIONS", 2)
    seconds = [7.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    current = snapshot()
    checker = check.Checker(lambda: current, lambda _: None, _fail)

    def detail(path: str) -> str:
        answer = checker.answer(request(method="DELETE", path=path).SerializeToString(), None)
        assert isinstance(answer, bytes)
        response = pb.CheckResponse.FromString(answer)
        assert denied(response, 403, "no-allow-rule-matched")
        return response.dynamic_metadata.fields["detail"].string_value

    nearest = "nearest: ns[apps]-policy[readers]-rule[0] (policies.yaml:6), but for methods"
    assert [detail(path) for path in ("/a", "/b", "/a", "/c", "/c")] == [nearest, nearest, nearest, "", ""]
    seconds[0] = 8.0
    assert detail("/c") == nearest
