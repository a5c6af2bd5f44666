"""What a check costs, in calls of functions: a stage that grows by more than the margin is looked at.

Not in time, which no shared machine repeats. To update the table after a change that is worth its cost, run
`python -m tests.test_cost` and copy what it prints.
"""

from functools import partial
from typing import Final

import pytest
from countersign.core import paths
from countersign.edge.check import Checker
from countersign.wire import auth_pb2 as pb
from countersign.wire import codec, outline

from bench.cases import snapshot_and_cases
from bench.counting import count_calls

MARGIN: Final = 1.10
SLACK: Final = 2  # calls, where a stage has few

# Measured with CPython 3.11; later ones inline some calls, and count fewer.
MOST: Final[dict[str, dict[str, int]]] = {
    "workload": {"rest": 109, "decode": 30, "peer": 28, "token": 35, "policies": 38, "encode": 10},
    "workload, again": {"rest": 26},
    "denied": {"rest": 125, "decode": 30, "peer": 28, "token": 35, "policies": 34, "explain": 711, "encode": 6},
    "denied, again": {"rest": 25},
    "user": {"rest": 113, "decode": 31, "peer": 28, "token": 214, "policies": 58, "encode": 16},
    "user, again": {"rest": 26},
    "browser": {"rest": 113, "decode": 31, "peer": 28, "token": 214, "policies": 58, "encode": 16},
    "browser, again": {"rest": 26},
    "browser, headers joined": {"rest": 114, "decode": 29, "peer": 26, "token": 214, "policies": 58, "encode": 16},
    "browser, headers joined, again": {"rest": 27},
}


def _fail(error: Exception) -> None:
    raise error


def measured() -> dict[str, dict[str, int]]:
    """Calls by case and stage, of a check like one that was answered before."""
    caches = (paths.meanings, codec._remembered, codec._metadata_alone, outline._entries, outline._server_name_of)
    for cache in caches:
        cache.cache_clear()  # equal answers of another test would have to be compared
    snapshot, cases = snapshot_and_cases()
    found = {}
    for name, case in cases.items():
        checker = Checker(lambda: snapshot, lambda _: None, _fail)
        for question in (case.payload, *case.others(2)):  # whatever else is remembered is remembered
            answer = checker.answer(question, 0.25)
            assert isinstance(answer, bytes)
            metadata = pb.CheckResponse.FromString(answer).dynamic_metadata
            assert metadata.fields["reason"].string_value == case.reason
        found[name] = count_calls(partial(checker.answer, case.others(1, 2)[0], 0.25))
        found[f"{name}, again"] = count_calls(partial(checker.answer, case.payload, 0.25))
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    return measured()


@pytest.mark.parametrize("case", MOST)
def test_no_stage_of_a_check_makes_more_calls_than_it_did(found: dict[str, dict[str, int]], case: str) -> None:
    grown = {
        stage: f"{calls} calls, it was {MOST[case].get(stage, 0)}"
        for stage, calls in found[case].items()
        if calls > MOST[case].get(stage, 0) * MARGIN + SLACK
    }
    assert grown == {}


def test_every_case_and_stage_is_counted(found: dict[str, dict[str, int]]) -> None:
    assert {case: stages.keys() for case, stages in found.items()} == {case: row.keys() for case, row in MOST.items()}


def test_the_same_check_makes_the_same_number_of_calls(found: dict[str, dict[str, int]]) -> None:
    assert measured() == found


def test_a_call_more_is_a_call_counted() -> None:
    assert count_calls(lambda: None)["rest"] + 1 == count_calls(lambda: len(""))["rest"]


if __name__ == "__main__":
    for _case, _stages in measured().items():
        print(f'    "{_case}": {_stages},'.replace("'", '"'))  # noqa: T201
