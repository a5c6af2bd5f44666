"""What the first check after policies were put in force has to do for itself: calls are counted, not time."""

import asyncio
from pathlib import Path
from typing import Final

import pytest
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.edge.check import Checker
from countersign.in_force import InForce, Policies
from countersign.policy.workload import GATEWAY_CLASS_LABEL, WAYPOINT_CLASS
from countersign.settings import Settings
from countersign.snapshot import Mesh
from countersign.wire import auth_pb2 as pb

from bench.counting import count_calls
from tests.edge.serving import reason, request
from tests.test_start import FEW, RULE, parsed, text

MESH: Final = Mesh(namespace="apps", labels=(("app", "httpbin"),))
# Those of another size, as the order of a set or the way of an index has it; one policy more costs over a hundred.
SLACK: Final = 100


def in_force(mesh: Mesh) -> InForce:
    return InForce(
        Settings(
            listen=(UnixAddress("/nowhere/authz.sock"),),
            insecure_listen=False,
            policies=(Path("/nowhere"),),
            probes=TcpAddress("127.0.0.1", 0),
            mesh=mesh,
        )
    )


def policies(count: int, generation: int) -> Policies:
    return Policies(resources=parsed(text(RULE, count)), inline={}, generation=generation)


def calls_of_the_first_check(count: int, namespace: str = "", *, reloads: int = 0, tcp: bool = False) -> int:
    """Calls that the first check makes after ``count`` policies were loaded, and as often reloaded."""
    now = in_force(MESH)

    def refuse(error: Exception) -> None:
        raise error

    checker = Checker(now.current, lambda _: None, refuse)
    for generation in range(1 + reloads):
        asyncio.run(now.put(policies(count, generation + 1)))
    message = request()
    if tcp:
        message.attributes.ClearField("request")
        message.attributes.destination.address.socket_address.address = "127.0.0.1"
    message.attributes.context_extensions.update({"workload.namespace": namespace} if namespace else {})
    answers: list[object] = []
    calls = sum(count_calls(lambda: answers.append(checker.answer(message.SerializeToString(), None))).values())
    (answer,) = answers
    assert isinstance(answer, bytes)
    said = "no-allow-policy-applies" if namespace else "no-allow-rule-matched"
    assert reason(pb.CheckResponse.FromString(answer)) == said
    return calls


@pytest.mark.parametrize("tcp", [False, True], ids=["http", "tcp"])
@pytest.mark.parametrize("reloads", [0, 1], ids=["started", "reloaded"])
def test_the_first_check_of_the_settings_workload_costs_no_more_with_more_policies(reloads: int, *, tcp: bool) -> None:
    calls_of_the_first_check(FEW, tcp=tcp)  # what is remembered is remembered
    few = calls_of_the_first_check(FEW, reloads=reloads, tcp=tcp)

    assert calls_of_the_first_check(4 * FEW, reloads=reloads, tcp=tcp) <= few + SLACK


def test_a_workload_that_only_requests_name_is_prepared_by_the_first_of_them() -> None:
    few = calls_of_the_first_check(FEW, "others")

    assert calls_of_the_first_check(4 * FEW, "others") > few + FEW


def test_labels_that_make_no_workload_keep_no_policy_out_of_force() -> None:
    now = in_force(Mesh(namespace="apps", labels=((GATEWAY_CLASS_LABEL, WAYPOINT_CLASS),)))
    asyncio.run(now.put(policies(1, 1)))

    assert now.current().policies is not None
