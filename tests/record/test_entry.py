"""What a record says, and what it never does."""

import json
import re
from typing import Any

import pytest
from countersign.core.decision import PolicyRef
from countersign.record.entry import entry
from countersign.record.lines import Lines
from countersign.record.mask import MASKABLE, masked
from countersign.record.text import LONGEST, line_of, path_of, plain
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import decode
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.serving import request
from tests.record.answering import ALLOW, DENY, PARENT, SLEEP, SPAN, TRACE, answered, full_request

LABELS = {"app": "countersign"}


def record(message: pb.CheckRequest | None = None, decision: Any = ALLOW) -> dict[str, Any]:
    payload = (message or full_request()).SerializeToString()
    found: dict[str, Any] = json.loads(Lines(labels=LABELS).record(answered(payload, decision), decode(payload)))
    return found


def test_a_record_of_an_allow_has_everything() -> None:
    assert record() == {
        "timestamp": "2027-01-15T08:00:00.250000Z",
        "decision_id": "0123456789abcdef-00000000000",
        "labels": LABELS,
        "trace_id": TRACE,
        "span_id": SPAN,
        "path": "istio/authz/allow",
        "input": {
            "source": {"address": "127.0.0.1", "port": 40000, "principal": SLEEP},
            "destination": {
                "address": "10.0.0.9",
                "port": 15006,
                "principal": "spiffe://cluster.local/ns/apps/sa/httpbin",
                "workload": {"namespace": "apps", "labels": {"app": "httpbin"}, "gateway": "edge"},
            },
            "request": {"method": "GET", "host": "httpbin", "path": "/a/b", "scheme": "https", "id": "r-1"},
            "sni": "httpbin.apps",
            "token": {"iss": "https://idp", "sub": "alice"},
        },
        "result": {
            "allowed": True,
            "action": "ALLOW",
            "reason": "allow-rule-matched",
            "http_status": 200,
            "policy": "ns[apps]-policy[readers]",
            "rule": 3,
            "source": "p.yaml:6",
            "audit": {"policy": "ns[apps]-policy[tried]", "rule": 0, "source": "t.yaml:2"},
            "dry_run": {
                "action": "DENY",
                "reason": "deny-rule-matched",
                "policy": "ns[apps]-policy[tried]",
                "rule": 0,
                "source": "t.yaml:2",
            },
        },
        "policies": {"generation": 7},
        "metrics": {"read_us": 10.0, "decide_us": 20.0, "wait_us": 500000.0, "encode_us": 3.0, "remembered": False},
    }


def test_a_record_of_a_denial_says_what_the_client_got_and_what_it_lacked() -> None:
    assert record(decision=DENY)["result"] == {
        "allowed": False,
        "action": "DENY",
        "reason": "no-allow-rule-matched",
        "http_status": 403,
        "detail": "nearest: x",
    }


def test_a_check_that_nobody_can_read_has_a_record_too() -> None:
    found = json.loads(Lines(labels=LABELS).record(answered(b"\xff", DENY), None))
    assert (found["input"], found["result"]["action"]) == ({}, "DENY")


def test_the_trace_of_the_call_is_the_one_that_is_named_where_envoy_traces() -> None:
    def ids(*values: str) -> tuple[str, str]:
        payload = full_request().SerializeToString()
        told = answered(payload, metadata=tuple(("traceparent", value) for value in values))
        found = json.loads(Lines(labels=LABELS).record(told, decode(payload)))
        return found["trace_id"], found["span_id"]

    call = PARENT.replace(TRACE, "a" * 32).replace(SPAN, "b" * 16)
    assert ids(call) == ("a" * 32, "b" * 16)
    assert ids() == ids(call, call) == ids(call.upper()) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "parent",
    [
        PARENT.upper(),
        f"{PARENT}-00",
        PARENT.replace(TRACE, "0" * 32),
        PARENT.replace(SPAN, "0" * 16),
        "ff" + PARENT[2:],
    ],
)
def test_a_trace_parent_of_another_form_is_not_believed(parent: str) -> None:
    assert record()["trace_id"] == TRACE
    assert not {"trace_id", "span_id"} & set(record(full_request(traceparent=parent)))


def test_of_two_trace_parents_none_is_believed() -> None:
    message = full_request()
    message.attributes.request.http.ClearField("headers")
    for count in (1, 2):
        message.attributes.request.http.header_map.headers.add(key="traceparent", raw_value=PARENT.encode())
        assert ("trace_id" in record(message)) == (count == 1)


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/a/b", "/a/b"),
        ("/a?access_token=secret", "/a"),
        ("/a#secret", "/a"),
        ("/a%3Faccess_token=secret", "/a"),
        ("/a%23secret", "/a"),
        ("/a;jsessionid=secret/b;x/c", "/a;/b;/c"),
        ("/a%3Bjsessionid=secret/b", "/a%3B/b"),
        ("/a/eyJhbGciOiJub25lIn0.eyJzdWIi.sig/b", "/a/[token]/b"),
        ("//admin", "//admin"),
        ("", ""),
    ],
)
def test_of_a_path_no_value_is_logged_that_may_be_a_credential(target: str, logged: str) -> None:
    assert path_of(target) == logged


def test_user_information_in_a_host_is_not_logged() -> None:
    message = full_request()
    message.attributes.request.http.host = "user:secret@httpbin"
    assert record(message)["input"]["request"]["host"] == "httpbin"


@given(st.text(alphabet=st.characters(), max_size=400))
def test_whatever_a_client_sends_is_one_ascii_line_that_reads_back(text: str) -> None:
    value = plain(text)
    line = line_of({"x": value})

    assert len(value) <= LONGEST or "\\ud" in value
    assert re.fullmatch(rb"[\x20-\x7e]*", line)
    assert json.loads(line) == {"x": value}


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\x1b[2J", "\u202eabc", "\u2028", "\x7f", "\x85", "\x00", '"}\n{"'])
def test_no_control_and_no_mark_of_direction_reaches_the_file(text: str) -> None:
    message = request(method=text, path=text, headers={"x-request-id": text})
    line = Lines(labels=LABELS).record(answered(), decode(message.SerializeToString()))

    assert re.fullmatch(rb"[\x20-\x7e]*", line)
    assert json.loads(line)["input"]["request"]["method"] == text


def test_an_octet_that_is_no_utf8_is_written_as_what_it_is() -> None:
    assert plain("a\udcffb") == "a\\udcffb"


def test_a_long_value_is_cut_and_says_so() -> None:
    assert plain("a" * LONGEST) == "a" * LONGEST
    assert plain("a" * 70_000) == "a" * (LONGEST - 1) + "…"


def test_a_token_is_hidden_before_a_value_is_cut() -> None:
    assert "eyJ" not in plain("/" * 240 + "eyJhbGciOiJub25lIn0.eyJzdWIi.sig")


def _pointers(value: dict[str, Any], at: str = "") -> set[str]:
    found = set()
    for name, member in value.items():
        found.add(f"{at}/{name}")
        if isinstance(member, dict) and name != "labels":
            found |= _pointers(member, f"{at}/{name}")
    return found


def test_everything_about_a_caller_can_be_masked() -> None:
    payload = full_request().SerializeToString()
    found = entry(answered(payload), decode(payload), LABELS)
    about = {pointer for pointer in _pointers(found) if pointer.startswith("/input")}

    assert about | {"/input/destination/workload/services"} == {each for each in MASKABLE if each.startswith("/input")}


@pytest.mark.parametrize("pointer", [each for each in MASKABLE if not each.endswith(("services", "detail"))])
def test_a_mask_erases_and_says_what_it_erased(pointer: str) -> None:
    payload = full_request().SerializeToString()
    before = entry(answered(payload), decode(payload), LABELS)
    after = masked(entry(answered(payload), decode(payload), LABELS), [pointer])

    assert after.pop("erased") == [pointer]
    left = {each for each in _pointers(before) if each != pointer and not each.startswith(f"{pointer}/")}
    assert _pointers(after) == left


def test_a_mask_of_what_is_not_there_says_nothing() -> None:
    assert "erased" not in masked({"input": {"token": {"iss": "x"}}}, ["/input/token/sub", "/input/sni", "/span_id"])


def test_a_policy_that_is_no_rule_is_written_as_it_is() -> None:
    named = PolicyRef(id="PeerAuthentication[apps/default]", source="p.yaml:1")
    found = record(decision=type(DENY)(reason=DENY.reason, status=403, body="", policy=named))["result"]
    assert (found["policy"], found["source"], "rule" in found) == (named.id, named.source, False)
