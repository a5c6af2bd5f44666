"""Moments and spans in words."""

import argparse

import pytest
from countersign.cli.times import iso, moment, relative


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (100, "now"),
        (101, "in 1 second"),
        (99.0, "1 second ago"),
        (100 + 3661, "in 1 hour 1 minute"),
        (-86300, "1 day ago"),
    ],
)
def test_a_moment_seen_from_another(seconds: float, words: str) -> None:
    assert relative(seconds, 100.9) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1.8e9, "2027-01-15T08:00:00Z"),
        (-1, "-1 s since 1970"),
        (1e300, "1e+300 s since 1970"),
    ],
)
def test_a_moment_in_iso_8601(seconds: float, text: str) -> None:
    assert iso(seconds) == text


def test_a_moment_is_read_with_its_zone() -> None:
    assert moment("1800000000") == moment("2027-01-15T08:00:00Z") == moment("2027-01-15T09:00:00+01:00")
    for text in ("", "tomorrow", "2027-01-15T08:00:00", "-1", "\u0661"):
        with pytest.raises(argparse.ArgumentTypeError, match="is neither"):
            moment(text)
