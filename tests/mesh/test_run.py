"""A row is right only if everything about it is, and one wrong row is enough for exit code 1."""

import dataclasses
import json
import sys

import pytest
from countersign.cli import demo
from countersign.cli.demo import report
from countersign.core.decision import AllowReason, Reason
from countersign.mesh.run import Observed, Row, gave_up, judge
from countersign.mesh.scenario import STAFF_TOKEN, Caller, Expected, Step

POLICY = "ns[apps]-policy[readers]-rule[0]"
ALLOWED = Expected(
    status=200,
    decision="ALLOW",
    reason=AllowReason.RULE_MATCHED,
    policy=POLICY,
    upstream={"x-user": ("alice",), "authorization": ()},
)
OBSERVED = Observed(
    status=200,
    body="{}",
    decision="ALLOW",
    reason="allow-rule-matched",
    policy=POLICY,
    source="allow.yaml:14",
    details="via_upstream",
    upstream=(("Host", "httpbin"), ("X-User", "alice")),
)
DENIED = Expected(status=403, decision="DENY", reason=Reason.NO_ALLOW_RULE_MATCHED, body="RBAC: access denied")
OBSERVED_DENIAL = Observed(
    status=403, body="RBAC: access denied", decision="DENY", reason="no-allow-rule-matched", details="ext_authz_denied"
)


def _row(expected: Expected, observed: Observed) -> Row:
    step = Step(title="a step", caller=Caller.EDGE, token=STAFF_TOKEN, expected=expected)
    return Row(step=step, observed=observed, faults=judge(expected, observed))


RIGHT = _row(ALLOWED, OBSERVED)
WRONG = _row(dataclasses.replace(ALLOWED, reason=AllowReason.NO_ALLOW_POLICY), OBSERVED)
FAULT = "reason: expected 'no-allow-policy-applies', got 'allow-rule-matched'"


@pytest.mark.parametrize(("expected", "observed"), [(ALLOWED, OBSERVED), (DENIED, OBSERVED_DENIAL)])
def test_a_row_that_is_as_expected_has_no_faults(expected: Expected, observed: Observed) -> None:
    assert judge(expected, observed) == ()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"status": 201}, "HTTP status: expected 200, got 201"),
        ({"decision": "DENY"}, "decision: expected 'ALLOW', got 'DENY'"),
        ({"reason": "mtls-required"}, "reason: expected 'allow-rule-matched', got 'mtls-required'"),
        ({"policy": "other"}, f"policy: expected '{POLICY}', got 'other'"),
        ({"source": ""}, "a file:line of the rule: expected True, got False"),
        ({"upstream": (("x-user", "root"),)}, "x-user at the application: expected ('alice',), got ('root',)"),
        (
            {"upstream": (("x-user", "alice"), ("X-USER", "root"))},
            "x-user at the application: expected ('alice',), got ('alice', 'root')",
        ),
        (
            {"upstream": (("x-user", "alice"), ("authorization", "Bearer x"))},
            "authorization at the application: expected (), got ('Bearer x',)",
        ),
    ],
)
def test_a_difference_is_a_fault_that_says_what_was_expected_and_what_came(
    change: dict[str, object], fault: str
) -> None:
    observed = dataclasses.replace(OBSERVED, **change)  # type: ignore[arg-type]  # each is a field's own type

    assert judge(ALLOWED, observed) == (fault,)


def test_a_denied_request_that_reaches_the_application_is_a_fault() -> None:
    observed = dataclasses.replace(OBSERVED_DENIAL, upstream=())

    assert judge(DENIED, observed) == ("reached the application: expected False, got True",)


def test_another_body_and_other_details_are_faults() -> None:
    expected = dataclasses.replace(DENIED, body="Jwt is expired", details="ext_authz_error")

    assert judge(expected, OBSERVED_DENIAL) == (
        "response code details: expected 'ext_authz_error', got 'ext_authz_denied'",
        "body: expected 'Jwt is expired', got 'RBAC: access denied'",
    )


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(("rows", "code"), [((RIGHT,), 0), ((RIGHT, WRONG), 1), ((WRONG,), 1), ((), 1)])
def test_the_exit_code_is_0_only_if_every_row_is_right(
    rows: tuple[Row, ...], code: int, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(rows, 1.5, form) == code
    assert capsys.readouterr().out


def test_the_text_shows_every_cell_and_names_the_fault(capsys: pytest.CaptureFixture[str]) -> None:
    report((RIGHT, WRONG), 1.5, "text")
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].split() == ["caller", "request", "token", "HTTP", "decision", "because", "what", "it", "shows"]
    assert lines[1].startswith("ok ")
    for cell in ("user (edge)", "GET /headers", "alice, ES256", " 200 ", " ALLOW ", "(allow.yaml:14)", POLICY):
        assert cell in lines[1]
    assert lines[2].startswith("WRONG ")
    assert lines[-2:] == [
        "1 of 2 requests went as they should, in 1.5 s",
        f"row 2, a step: {FAULT}",
    ]


def test_a_terminal_without_the_library_for_tables_gets_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the image, whose `demo` may be run by hand."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(demo, "find_spec", lambda _name: None)
    monkeypatch.setitem(sys.modules, "rich", None)
    report((RIGHT,), 1.5, "text")

    assert capsys.readouterr().out.splitlines()[1].startswith("ok ")


def test_the_json_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    report((RIGHT, WRONG), 1.5, "json")
    document = json.loads(capsys.readouterr().out)

    assert {key: document[key] for key in ("requests", "right", "wrong", "seconds")} == {
        "requests": 2, "right": 1, "wrong": 1, "seconds": 1.5,
    }  # fmt: skip
    assert document["rows"][1]["faults"] == [FAULT]
    assert document["rows"][0]["policy"] == POLICY
    assert document["rows"][0]["source"] == "allow.yaml:14"


def test_no_form_of_the_rows_shows_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    leaking = dataclasses.replace(RIGHT.observed, upstream=(("x-user", "alice"), ("authorization", "Bearer eyJhbGci")))
    for form in ("text", "json"):
        report((Row(step=RIGHT.step, observed=leaking),), 1.5, form)

    assert "eyJ" not in capsys.readouterr().out


def test_a_request_is_sent_again_only_where_a_decision_should_be_and_envoy_has_given_up() -> None:
    nobody = Observed(status=503, details="ext_authz_error")

    assert gave_up(ALLOWED, nobody)
    assert gave_up(DENIED, nobody)
    assert not gave_up(Expected(status=503, decision="", reason=""), nobody)  # where Countersign is stopped
    assert not gave_up(ALLOWED, OBSERVED_DENIAL)
    assert not gave_up(DENIED, OBSERVED)
    assert not gave_up(ALLOWED, dataclasses.replace(nobody, details="upstream_reset"))
