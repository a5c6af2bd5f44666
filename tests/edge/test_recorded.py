"""Recorded checks: protobuf JSON to the facts that serving would have had."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from countersign.core.decision import Deny, Reason
from countersign.core.facts import HttpRequest, RequestFacts
from countersign.edge.recorded import RecordedError, parse_recorded, read_recorded
from countersign.wire.codec import decode
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.serving import request

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def recorded(**attributes: Any) -> str:
    return json.dumps({"attributes": attributes})


def http(text: str) -> HttpRequest:
    facts = parse_recorded(text).facts
    assert isinstance(facts, RequestFacts)
    assert facts.http is not None
    return facts.http


@pytest.mark.parametrize("as_in_proto", [True, False])
def test_a_check_reads_as_it_did_on_the_wire_in_both_spellings(as_in_proto: bool) -> None:
    message = request(headers={"x-tier": "gold"})
    text = json_format.MessageToJson(message, preserving_proto_field_name=as_in_proto)
    served = decode(message.SerializeToString())
    found = parse_recorded(text).facts

    assert isinstance(found, RequestFacts)
    assert found.http is not None
    assert served.http is not None
    assert (found.source, found.destination, found.sni) == (served.source, served.destination, served.sni)
    assert (found.http.method, found.http.path, found.http.host) == ("GET", "/headers", "httpbin")
    assert found.http.headers.values("x-tier") == served.http.headers.values("x-tier") == ("gold",)


def test_header_lines_keep_their_bytes() -> None:
    lines = [{"key": "x-a", "rawValue": "/w=="}, {"key": "x-a", "raw_value": "Yg=="}]
    read = http(recorded(request={"http": {"headerMap": {"headers": lines}}}))

    assert read.headers.values("x-a") == ("\udcff", "b")


@pytest.mark.parametrize("time", ["2027-01-15T08:00:00.500Z", "2027-01-15T09:00:00.5+01:00"])
def test_the_time_of_the_request_is_kept(time: str) -> None:
    assert parse_recorded(recorded(request={"time": time})).time == 1_800_000_000.5
    assert parse_recorded(recorded(request={})).time is None


def test_metadata_of_types_that_only_filters_know_is_passed_over() -> None:
    metadata = {"filterMetadata": {"a": {"b": 1}}, "typedFilterMetadata": {"a": {"@type": "x/unheard.Of"}}}

    assert parse_recorded(recorded(metadataContext=metadata, routeMetadataContext=metadata)).unread == ""


def test_a_field_that_envoy_does_not_have_is_named() -> None:
    assert parse_recorded(recorded(source={"principle": "spiffe://a/b"})).unread == "principle"
    assert parse_recorded(recorded(source={"principal": "spiffe://a/b"})).unread == ""


def test_what_serving_denies_unread_is_denied_here() -> None:
    facts = parse_recorded(recorded(request={"http": {"method": "GET"}})).facts

    assert isinstance(facts, Deny)
    assert facts.reason is Reason.REQUEST_INCOMPLETE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON with one reading: not JSON, line 1, column 1: Expecting value"),
        ('{\n  "attributes": }', "not JSON, line 2, column 17: Expecting value"),
        ("[]", "not a JSON object"),
        ("{}", "no `attributes` object"),
        ('{"attributes": []}', "no `attributes` object"),
        ('{"attributes": {}, "attributes": {}}', "a name twice in one object"),
        ('{"attributes": {}}\n{"attributes": {}}', "it has 2 lines, and FILE:LINE picks one"),
        (recorded(request={"http": {"method": 5}}), "no CheckRequest: "),
        (recorded(request={"http": {"methud": "GET", "path": 5}}), "no CheckRequest: "),
        (recorded(metadataContext=5), "no CheckRequest: "),
    ],
)
def test_what_is_no_check_is_refused_with_one_line(text: str, message: str) -> None:
    with pytest.raises(RecordedError) as refused:
        parse_recorded(text)

    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@given(
    st.sampled_from(["source", "destination", "request", "tlsSession", "contextExtensions", "metadataContext"]), VALUES
)
def test_any_json_is_read_or_refused(name: str, value: Any) -> None:
    with contextlib.suppress(RecordedError):
        parse_recorded(recorded(**{name: value}))


def test_a_line_counts_from_one(tmp_path: Path) -> None:
    file = tmp_path / "checks.jsonl"
    file.write_text("\n".join(recorded(tlsSession={"sni": name}) for name in ("a", "b")))
    second = read_recorded(f"{file}:2").facts

    assert isinstance(second, RequestFacts)
    assert second.sni == "b"
    with pytest.raises(RecordedError, match="fewer lines"):
        read_recorded(f"{file}:3")


def test_a_file_whose_name_ends_like_a_line_is_that_file(tmp_path: Path) -> None:
    file = tmp_path / "check:2"
    file.write_text(recorded(tlsSession={"sni": "whole"}))

    assert read_recorded(str(file)).facts == parse_recorded(file.read_text()).facts


def test_a_file_that_is_not_text_is_refused_and_one_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")

    with pytest.raises(RecordedError, match="not UTF-8"):
        read_recorded(str(tmp_path / "binary"))
    with pytest.raises(FileNotFoundError):
        read_recorded(str(tmp_path / "nothing"))
