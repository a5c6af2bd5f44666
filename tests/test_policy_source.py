"""Policies while the server runs: nothing that goes wrong with one set ends the watching for the next."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.edge.readiness import Check
from countersign.in_force import Policies
from countersign.policy_source import PolicySource
from countersign.settings import Settings
from countersign.snapshot import Mesh

WITHIN = 10.0  # seconds
POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: NAME, namespace: apps}
spec: {}
"""


def test_a_fault_of_ours_with_one_set_keeps_the_last_good_one_and_the_next_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "p.yaml"
    taken: list[str] = []

    async def put(policies: Policies) -> None:
        (policy,) = policies.resources.authorization_policies
        if policy.meta.name == "faulty":
            raise RuntimeError("broken on purpose")
        taken.append(policy.meta.name)

    async def watch() -> None:
        file.write_text(POLICY.replace("NAME", "first"))
        news = asyncio.Event()
        source = PolicySource(_settings(tmp_path), put, news.set)
        await source.load()
        (task,) = source.start(asyncio.Event())
        try:
            file.write_text(POLICY.replace("NAME", "faulty"))
            await _until(news, lambda: source.loads.bad == 1)
            assert taken == ["first"]
            assert (
                "policies not loaded, the last good set stays in force:\na fault of ours: RuntimeError" in caplog.text
            )
            assert "broken on purpose" in caplog.text
            (check,) = source.checks()
            assert "generation 1 stays in force" in check.wrong
            assert not check.fails

            file.write_text(POLICY.replace("NAME", "second"))
            await _until(news, lambda: taken == ["first", "second"])
            assert source.checks() == (Check("policies"),)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(watch())


def _settings(policies: Path) -> Settings:
    return Settings(
        listen=(UnixAddress("/nowhere/authz.sock"),),
        insecure_listen=False,
        policies=(policies,),
        probes=TcpAddress("127.0.0.1", 0),
        mesh=Mesh(),
    )


async def _until(news: asyncio.Event, true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not true():
            await news.wait()
            news.clear()
