"""The scenario shows what the demo promises, and agrees with the committed policies."""

from pathlib import Path

import pytest
import yaml
from countersign.core.decision import Reason
from countersign.mesh.scenario import EDIT, EDITED_FILE, SCENARIO, Caller, Change, Signature, Step

POLICIES = Path(__file__).parents[2] / "envoy" / "policies"


def _reasons(steps: tuple[Step, ...] = SCENARIO) -> set[str]:
    return {step.expected.reason for step in steps}


def test_there_are_at_least_sixteen_requests_each_with_a_title_of_its_own() -> None:
    assert len(SCENARIO) >= 16
    assert len({step.title for step in SCENARIO}) == len(SCENARIO)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.MTLS_REQUIRED,
        Reason.DENY_RULE_MATCHED,
        Reason.NO_ALLOW_RULE_MATCHED,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_ISSUER,
        Reason.TOKEN_AUDIENCE,
        Reason.TOKEN_SIGNATURE,
        Reason.TOKEN_ALGORITHM,
        Reason.TOKEN_MALFORMED,
        Reason.TOKEN_OTHER_PEER,
        Reason.TOKEN_OTHER_CERTIFICATE,
    ],
)
def test_the_reason_is_shown(reason: Reason) -> None:
    assert reason in _reasons()


def test_every_caller_and_every_change_takes_part() -> None:
    assert {step.caller for step in SCENARIO} == set(Caller)
    assert {step.change for step in SCENARIO} == {None, *Change}


def test_every_algorithm_and_every_kind_of_signature_takes_part() -> None:
    tokens = [step.token for step in SCENARIO if step.token]

    assert {token.algorithm for token in tokens} == {"RS256", "ES256", "EdDSA"}
    assert {token.signature for token in tokens} == set(Signature)


def test_forged_headers_take_part() -> None:
    assert {name for step in SCENARIO for name, _ in step.headers} == {"x-forwarded-client-cert", "x-user"}


def test_a_rotated_key_is_accepted_at_once() -> None:
    rotated = next(step for step in SCENARIO if step.change is Change.ROTATE_KEYS)

    assert rotated.expected.status == 200
    assert rotated.patience == 0


@pytest.mark.parametrize("reason", [Reason.TOKEN_OTHER_PEER, Reason.TOKEN_OTHER_CERTIFICATE])
def test_a_stolen_token_is_one_that_its_own_workload_has_just_used(reason: Reason) -> None:
    stolen = next(step for step in SCENARIO if step.expected.reason == reason)
    before = SCENARIO[SCENARIO.index(stolen) - 1]

    assert before.token is stolen.token
    assert (before.method, before.path) == (stolen.method, stolen.path)
    assert (before.caller, before.expected.status) == (Caller.SLEEP, 200)
    assert stolen.caller is Caller.BATCH


def test_the_edit_of_the_policy_is_possible_and_flips_an_answer_that_was_no() -> None:
    before, after = EDIT
    text = (POLICIES / EDITED_FILE).read_text()
    flip = next(step for step in SCENARIO if step.change is Change.EDIT_POLICY)
    earlier = next(step for step in SCENARIO if step.path == flip.path)

    assert text.count(before) == 1
    assert flip.path in after
    assert (earlier.change, earlier.expected.status, flip.expected.status) == (None, 403, 200)


def test_only_rules_that_exist_decide() -> None:
    ids = set()
    for file in POLICIES.iterdir():
        for document in yaml.safe_load_all(file.read_text()):
            name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
            if document["kind"] == "AuthorizationPolicy":
                ids |= {f"ns[{namespace}]-policy[{name}]-rule[{n}]" for n in range(len(document["spec"]["rules"]))}
            else:
                ids.add(f"{document['kind']}[{namespace}/{name}]")

    assert {step.expected.policy for step in SCENARIO} - {""} == ids
