"""`docker compose up`: the demo mesh in containers, on its own networks, by the commands that the documentation has."""

import http.client
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from countersign.mesh.composed import LEFT_OUT, WALK
from countersign.mesh.process import wait_until

from tests.compose.project import ROOT, Project

SLEEP, EDGE = 15001, 8080  # published on loopback
ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())


@pytest.fixture(scope="module")
def mesh(project: Project) -> Iterator[Project]:
    """The mesh, once `demo` has ended."""
    project.said("up", "--detach", "--no-build", "--pull", "never")
    project.run("wait", "demo")  # it fails where there is nothing to wait for any more
    yield project
    project.said("down", "--volumes", "--remove-orphans", "--timeout", "3")
    assert project.said("ps", "--all", "--quiet") == ""
    assert project.said("volumes", "--quiet") == ""


def ask(port: int, path: str, method: str = "GET", token: str = "") -> int:
    """The status of an answer on a published port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers={"authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()


def answers(port: int, path: str, status: int) -> None:
    """Return once it answers so."""

    def found() -> bool | None:
        try:
            return ask(port, path) == status or None
        except OSError:
            return None

    wait_until(f"{status} from {path}", found, within=30)


def prometheus(question: str) -> Any:
    """What Prometheus' API says, on its published port."""
    with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{question}", timeout=5) as answer:
        return json.loads(answer.read())["data"]


def rows(mesh: Project, *flags: str) -> dict[str, int]:
    """What `demo` shows when it is run once more, and how many of its rows are right."""
    word, *command = mesh.configuration()["services"]["demo"]["command"]
    # Without --rm: with it Podman 4 forgets the exit code.
    shown = json.loads(mesh.said("run", "-T", *flags, "demo", word, "--output", "json", *command))
    assert [(row["title"], row["faults"]) for row in shown["rows"] if not row["right"]] == []
    return {"requests": shown["requests"], "right": shown["right"]}


def test_up_shows_the_table_with_every_row_right_and_demo_ends_with_0(mesh: Project) -> None:
    table = mesh.said("logs", "--no-log-prefix", "demo")
    print(table)  # noqa: T201 (for -rP)

    assert f"{len(WALK)} of {len(WALK)} requests went as they should" in table
    state, _, code = mesh.states()["demo"]
    assert (state, code) == ("exited", 0)


def test_a_name_is_found_at_once_also_when_the_bridge_has_another_address(mesh: Project) -> None:
    look = "import socket, time; t = time.monotonic(); socket.getaddrinfo('issuer', 8000); print(time.monotonic() - t)"

    def seconds() -> float:
        return float(mesh.said("exec", "-T", "countersign", "python", "-c", look))

    def ip(words: str) -> str:
        return subprocess.check_output(["/usr/bin/env", "ip", *words.split()], text=True, timeout=10)

    (bridge,) = json.loads(ip("-json link show type bridge"))
    lowest = "00:00:00:00:00:01"
    assert seconds() < 1  # and from now on it knows the bridge's address
    ip(f"link add lowest address {lowest} master {bridge['ifname']} type veth")
    try:
        assert json.loads(ip("-json link show type bridge"))[0]["address"] == lowest != bridge["address"]
        assert seconds() < 1
    finally:
        ip("link delete lowest")
    assert seconds() < 1


def test_every_service_that_stays_is_healthy(mesh: Project) -> None:
    states = mesh.states()
    ended = {name: states.pop(name) for name in ("certificates", "demo")}

    assert {code for _, _, code in ended.values()} == {0}
    assert {name: state[:2] for name, state in states.items()} == dict.fromkeys(states, ("running", "healthy"))
    assert set(states) == {"issuer", "upstream", "countersign", "envoy-httpbin", "envoy-sleep", "envoy-edge"}


def test_demo_can_be_run_once_more_beside_the_mesh(mesh: Project) -> None:
    assert rows(mesh, "--no-deps") == {"requests": len(WALK), "right": len(WALK)}


@pytest.mark.parametrize("service", ["countersign", "envoy-httpbin", "envoy-edge", "issuer"])
def test_what_runs_has_the_user_and_no_privilege_and_a_root_that_it_cannot_write(mesh: Project, service: str) -> None:
    text = mesh.said("exec", "-T", service, "cat", "/proc/1/status")
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    denied = mesh.run("exec", "-T", service, "touch", "/usr/x")

    assert (set(status["Uid"].split()), set(status["Gid"].split())) == ({"65532"}, {"65532"})
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    assert "Read-only file system" in denied.stderr + denied.stdout
    assert mesh.run("exec", "-T", service, "touch", "/tmp/x").returncode == 0  # noqa: S108 (inside the container)


def test_the_published_ports_answer_on_the_host_as_the_file_says_at_its_top(mesh: Project) -> None:
    assert ask(SLEEP, "/headers") == 200
    assert ask(SLEEP, "/headers", "DELETE") == 403
    assert mesh.said("port", "envoy-sleep", str(SLEEP)).strip() == f"127.0.0.1:{SLEEP}"


def test_the_tokens_in_the_issuers_log_pass_the_edge(mesh: Project) -> None:
    words = mesh.said("logs", "--no-log-prefix", "issuer").split()
    tokens = [word for word in words if word.startswith("eyJ")]

    assert {ask(EDGE, "/headers", token=token) for token in tokens} >= {200}
    assert ask(EDGE, "/headers", token=tokens[0][:-4] + "AAAA") == 401


def test_what_demo_leaves_to_the_host_is_so_when_its_commands_are_run_there(mesh: Project) -> None:
    """A changed policy counts, without Countersign nothing passes, and with it again it does."""
    policies = mesh.directory / "envoy" / "policies"
    before = {file: file.read_text() for file in policies.iterdir()}
    seen = []
    for step, command in LEFT_OUT:
        if command.startswith("docker compose "):
            mesh.said(*command.split()[2:])
        else:
            subprocess.run(["/bin/sh", "-c", command], cwd=mesh.directory, check=True, timeout=10)
        answers(SLEEP, step.path, step.expected.status)
        seen.append(step.expected.status)

    assert len(set(seen)) > 1
    assert seen[-1] == 200
    for file, text in before.items():
        file.write_text(text)
    answers(SLEEP, "/status", 403)
    wait_until("health", lambda: mesh.states()["countersign"][1] == "healthy" or None, within=30)


def test_the_profile_observability_adds_a_prometheus_that_asks_countersign_and_has_the_alerts(mesh: Project) -> None:
    observed = ("--profile", "observability")
    mesh.said(*observed, "up", "--detach", "--wait", "--no-deps", "--no-build", "--pull", "never", "prometheus")
    try:
        wait_until("a scrape", lambda: prometheus("query?query=up")["result"] or None, within=30)
        (up,) = prometheus("query?query=up")["result"]
        (group,) = prometheus("rules")["groups"]

        assert up["metric"] == {"__name__": "up", "job": "countersign", "instance": "countersign:8282"}
        assert up["value"][1] == "1"
        assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in ALERTS["groups"][0]["rules"]]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
        assert [rule["name"] for rule in group["rules"] if rule["state"] != "inactive"] == []
    finally:
        mesh.said(*observed, "rm", "--stop", "--force", "prometheus")
