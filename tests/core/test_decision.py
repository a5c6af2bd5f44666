"""Outcomes are closed sets of stable names, and a decision is never made by default."""

import re

import pytest
from countersign.core.decision import Allow, AllowReason, Deny, Reason


def test_reasons_are_distinct_and_spelt_as_labels() -> None:
    spelt = [*map(str, Reason), *map(str, AllowReason)]

    assert len(set(spelt)) == len(spelt)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", reason) for reason in spelt)


def test_the_names_that_dashboards_and_logs_hold_on_to() -> None:
    """A reason is for ever: renaming one breaks somebody's alert."""
    assert set(map(str, AllowReason)) == {"allow-rule-matched", "no-allow-policy-applies"}
    assert set(map(str, Reason)) >= {
        "request-malformed",
        "request-incomplete",
        "workload-unknown",
        "no-policies-loaded",
        "deadline-passed",
        "server-overloaded",
        "internal-error",
        "caller-not-allowed",
        "peer-malformed",
        "peer-mismatch",
        "peer-untrusted-proxy",
        "peer-untrusted-domain",
        "mtls-required",
        "token-malformed",
        "token-ambiguous",
        "token-algorithm-refused",
        "token-type-refused",
        "token-unknown-issuer",
        "token-wrong-audience",
        "token-expired",
        "token-not-yet-valid",
        "token-without-expiry",
        "token-bad-signature",
        "token-unknown-key",
        "keys-unavailable",
        "keys-stale",
        "deny-rule-matched",
        "no-allow-rule-matched",
    }


def test_an_allowance_has_no_default() -> None:
    with pytest.raises(TypeError):
        Allow()  # type: ignore[call-arg]  # that is the point


def test_a_denial_has_no_default() -> None:
    with pytest.raises(TypeError):
        Deny()  # type: ignore[call-arg]  # that is the point
