"""What the headers of an answer say about the next request."""

import pytest
from countersign.edge.keys.freshness import Freshness, Validators, conditions, freshness, retry_after, validators

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "max_age", "storable"),
    [
        ({}, None, True),
        ({"cache-control": "public"}, None, True),
        ({"cache-control": "public, max-age=600, must-revalidate"}, 600, True),
        ({"cache-control": 'Max-Age="600"'}, 600, True),
        ({"cache-control": "max-age=600, max-age=60"}, 60, True),
        ({"cache-control": "max-age=600", "age": "100"}, 500, True),
        ({"cache-control": "max-age=600", "age": "601"}, 0, True),
        ({"cache-control": "max-age=600", "age": "x"}, 600, True),
        ({"cache-control": "no-cache"}, 0, True),
        ({"cache-control": 'no-cache="set-cookie", max-age=600'}, 0, True),
        ({"cache-control": "no-store, max-age=600"}, 0, False),
        ({"cache-control": "max-age=x"}, None, True),
        ({"cache-control": "max-age=-1"}, None, True),
        ({"cache-control": "s-maxage=600"}, None, True),
        ({"cache-control": "max-age=9999999999"}, None, True),
        ({"age": "5"}, None, True),
    ],
)
def test_cache_control_and_age_say_how_long(headers: dict[str, str], max_age: float | None, storable: bool) -> None:
    assert freshness(headers) == Freshness(max_age=max_age, storable=storable)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
        ("9" * 5000, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None, status: int) -> None:
    assert retry_after(status, {"retry-after": text}, NOW) == seconds


def test_retry_after_counts_where_a_server_is_busy_only() -> None:
    for status in (200, 301, 404, 500):
        assert retry_after(status, {"retry-after": "60"}, NOW) is None


def test_validators_are_sent_back_to_their_url_only() -> None:
    both = validators("u", {"etag": 'W/"1"', "last-modified": "Fri, 15 Jan 2027 08:00:00 GMT"})
    dated = validators("u", {"last-modified": "Fri, 15 Jan 2027 08:00:00 GMT"})

    assert conditions(both, "u") == {"if-none-match": 'W/"1"'}
    assert conditions(dated, "u") == {"if-modified-since": "Fri, 15 Jan 2027 08:00:00 GMT"}
    assert conditions(both, "other") == {}
    assert conditions(None, "u") == {}


def test_what_cannot_be_sent_back_is_no_validator() -> None:
    assert validators("u", {}) is None
    for text in ('"é"', "x" * 513, "a\tb", "a\r\nb: c"):
        assert validators("u", {"etag": text}) is None
        assert validators("u", {"etag": text, "last-modified": "x"}) == Validators(uri="u", last_modified="x")
