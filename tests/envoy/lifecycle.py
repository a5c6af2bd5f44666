"""What callers see of restarts, reloads and crashes: real Envoy with `envoy/workers.yaml`, real `countersign serve`.

``python -m tests.envoy.lifecycle``, which is ``make lifecycle``, measures at full size, and
`test_lifecycle` at a small one.
Every answer is held against what it must be: Envoy writes the
decision's generation, reason and policy into its body.
"""

import argparse
import contextlib
import datetime as dt
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from countersign.mesh.certificates import write_certificates
from countersign.mesh.envoy import Envoy
from countersign.mesh.issuer import Issuer
from countersign.mesh.process import Child, wait_until
from countersign.mesh.relocate import Places

from bench.http2 import STATUS_200, Exchange, Load, Outcome, get_exchange
from tests.cli.serving import free_port
from tests.edge.probing import ask

CONFIGURATION: Final = Path(__file__).parents[2] / "envoy" / "workers.yaml"
TRANSPORTS: Final = ("native", "grpcio")
POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: good, namespace: apps}
spec:
  rules: [{to: [{operation: {paths: [/good]}}]}]
"""
_ANSWER: Final = " ".join(
    f"%{what}%"
    for what in (
        "RESPONSE_CODE",
        "PATH(NQ)",
        *(f"DYNAMIC_METADATA(envoy.filters.http.ext_authz:{key})" for key in ("generation", "reason", "policy")),
    )
)
PACE: Final = 20.0  # reloads a second at most; a hundred could be, and then few requests would meet each
_SHAPES: Final = ((), ("--workers", "2"))
_UNAVAILABLE: Final = 503
_PATIENCE: Final = 20.0  # seconds for a replica to end, on a machine that is full: a running check may take ten
_SLICE: Final = 0.5  # seconds of load between two looks at whether to go on
_CONNECTIONS: Final = 4
_ANY: Final = ("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request. ``generation`` is 0, and reason and policy are ``-``, where nobody has decided."""

    status: int
    path: str
    generation: int
    reason: str
    policy: str


class Replica:
    """One `countersign serve`, started, stopped and killed at will, from entering the context to leaving it."""

    def __init__(self, directory: Path, name: str, *flags: str) -> None:
        self._directory = directory / f"{name}.d"
        self._directory.mkdir()
        self._flags = ("--listen", f"unix:{directory}/run/{name}.sock", "--policies", f"{directory}/policies", *flags)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()

    def start(self) -> None:
        """Start it, and return when it is ready."""
        self._port = free_port()
        command = [sys.executable, "-m", "countersign", "serve", *self._flags, "--probes", f"127.0.0.1:{self._port}"]
        command += ["--admin", "off"]  # two replicas, and one default port
        self.child = Child("serve", command, directory=self._directory)
        wait_until("being ready", self._is_ready, within=30, child=self.child)

    def workers(self) -> list[int]:
        """The processes of its workers, the latest of each."""
        return [int(pid) for _, pid in dict(re.findall(r"(worker \d+) .* serves, process (\d+)\n", self.log)).items()]

    def wait_for_others(self, known: Sequence[int]) -> None:
        """Return when each worker is another process."""
        wait_until("others", lambda: not {*self.workers()} & {*known} or None, within=20, child=self.child)

    def wait_for_log(self, text: str) -> None:
        """Return once the log has the text."""
        wait_until(f"logging `{text}`", lambda: text in self.log or None, within=20, child=self.child)

    @property
    def log(self) -> str:
        """Everything that the process that runs has logged."""
        return self.child.log.read_text()

    def _is_ready(self) -> bool | None:
        try:
            return ask(self._port, "/readyz")[0] == 200 or None
        except OSError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A sidecar, and the replicas that it asks."""

    envoy: Envoy
    replicas: Sequence[Replica]
    policies: Path

    def healthy(self, count: int) -> None:
        """Return when Envoy takes that many endpoints for healthy."""
        wait_until(f"{count} healthy", lambda: len(self._healthy()) == count or None, within=20)

    def _healthy(self) -> list[str]:
        clusters = json.loads(self.envoy._ask("/clusters?format=json") or "{}").get("cluster_statuses", [])
        (hosts,) = [each["host_statuses"] for each in clusters if each["name"] == "countersign"] or [[]]
        return [each for each in hosts if each["health_status"] == {"eds_health_status": "HEALTHY"}]


@contextlib.contextmanager
def running(directory: Path, names: Sequence[str], *flags: str, policy: str = POLICY) -> Iterator[Parts]:
    """A replica of each name (a socket of `envoy/workers.yaml`, or what workers make their sockets of), and a sidecar.

    Where there is one replica and it has no workers, Envoy has one endpoint.
    """
    for each in ("run", "certs", "policies"):
        (directory / each).mkdir()
    write_certificates(directory / "certs", dt.datetime.now(dt.UTC))
    (directory / "policies" / "p.yaml").write_text(policy)
    document = yaml.safe_load(CONFIGURATION.read_text())
    _answer_itself(document)
    if len(names) == 1 and "--workers" not in flags:
        document["static_resources"]["clusters"][1]["load_assignment"]["endpoints"][0]["lb_endpoints"].pop()
    changed = directory / "workers.yaml"
    changed.write_text(yaml.safe_dump(document))
    with contextlib.ExitStack() as parts:
        replicas = [parts.enter_context(Replica(directory, name, *flags)) for name in names]
        places = Places(
            addresses={"127.0.0.1:9901": _ANY, "0.0.0.0:15006": _ANY, "upstream:8080": _ANY},
            paths={"/run/countersign": directory / "run", "/run/mesh/certs": directory / "certs"},
        )
        envoy = parts.enter_context(Envoy(changed, places, directory))
        envoy.wait_ready()
        running = Parts(envoy=envoy, replicas=replicas, policies=directory / "policies")
        running.healthy(2 if "--workers" in flags else len(names))
        yield running


def _answer_itself(document: Any) -> None:
    """Envoy answers for the application and says who decided; and logs nothing, which at this rate costs too much."""
    for chain in document["static_resources"]["listeners"][0]["filter_chains"]:
        manager = chain["filters"][0]["typed_config"]
        manager.pop("access_log", None)
        manager["local_reply_config"] = {"body_format": {"text_format_source": {"inline_string": _ANSWER}}}
        (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
        route.pop("route", None)
        route["direct_response"] = {"status": 200}


@dataclass(slots=True)
class Seen:
    """What the load has seen so far."""

    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    error: BaseException | None = None

    def parsed(self) -> dict[Answer, int]:
        """How many answers of each kind."""
        return {_parsed(text): count for text, count in self.answers.items()}

    def p99(self) -> float:
        """The 99th percentile of the latencies, in seconds."""
        return Outcome(latencies=self.latencies).percentile(0.99)


def _parsed(text: str) -> Answer:
    status, path, generation, reason, policy = text.split(" ")
    return Answer(int(status), path, int(float(generation.replace("-", "0"))), reason, policy)


@contextlib.contextmanager
def load(envoy: Envoy, exchanges: Iterator[Exchange], rate: float) -> Iterator[Seen]:
    """Requests at that rate while the block runs, in an open loop. What the load itself met is raised at the end."""
    seen, stop = Seen(), threading.Event()
    client = Load(("127.0.0.1", envoy.port("inbound")), _text, connections=_CONNECTIONS)

    def send() -> None:
        try:
            while not stop.is_set():
                outcome = client.open_loop(exchanges, _SLICE, rate)
                seen.answers += outcome.answers
                seen.latencies += outcome.latencies
        except BaseException as error:  # noqa: BLE001 (it is raised below)
            seen.error = error

    thread = threading.Thread(target=send, name="load")
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        client.close()
    if seen.error is not None:
        raise seen.error


def _text(status: int, body: bytes) -> str:
    text = body.decode()
    if (status == STATUS_200) is not text.startswith("200 "):
        raise AssertionError(f"status octet {status:#x} of {text!r}")
    return text


def good_and_bad() -> Iterator[Exchange]:
    """By turns one that policies allow and one that they do not, each of its own, so that none is remembered."""
    for number in itertools.count():
        yield get_exchange(f"/{'bad' if number % 2 else 'good'}?{number}", "httpbin")


def outcomes(seen: Seen) -> Counter[tuple[str, int]]:
    """How many answers of each path and status."""
    counts: Counter[tuple[str, int]] = Counter()
    for answer, count in seen.parsed().items():
        counts[answer.path, answer.status] += count
    return counts


def restarts(directory: Path, transport: str, rate: float, count: int) -> Seen:
    """Restart two replicas by turns, ``count`` times in all, each with the other healthy."""
    with running(directory, ("authz-0", "authz-1"), "--transport", transport) as parts:
        with load(parts.envoy, good_and_bad(), rate) as seen:
            for number in range(count):
                replica = parts.replicas[number % 2]
                code = replica.child.stop(_PATIENCE)
                if code:
                    raise AssertionError(f"exit code {code}:{replica.child.last_lines()}")
                replica.start()
                parts.healthy(2)
        return seen


# What is in force by turns: in each set another issuer's key counts, another policy allows, and another one denies.
_SET: Final = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: apps}}
spec: {{jwtRules: [{{issuer: "https://issuer.test", jwks: '{jwks}'}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: allow-{name}, namespace: apps}}
spec: {{rules: [{{from: [{{source: {{requestPrincipals: ["*"]}}}}]}}, {{to: [{{operation: {{paths: [/{name}]}}}}]}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny-{other}, namespace: apps}}
spec: {{action: DENY, rules: [{{to: [{{operation: {{paths: [/{other}]}}}}]}}]}}
"""
_NAMES: Final = ("odd", "even")


def _right(answer: Answer) -> bool:
    """Whether one set alone, that of its generation, can have given this answer."""
    mine, other = _NAMES if answer.generation % 2 else reversed(_NAMES)
    expected = {
        f"/{mine}": (200, "allow-rule-matched", f"ns[apps]-policy[allow-{mine}]-rule[1]"),
        f"/{other}": (403, "deny-rule-matched", f"ns[apps]-policy[deny-{other}]-rule[0]"),
        f"/token-{mine}": (200, "allow-rule-matched", f"ns[apps]-policy[allow-{mine}]-rule[0]"),
        f"/token-{other}": (401, "token-unknown-key", answer.policy),
    }
    return answer.generation > 0 and (answer.status, answer.reason, answer.policy) == expected.get(answer.path)


def reloads(directory: Path, transport: str, rate: float, count: int, *flags: str) -> tuple[Seen, list[Answer]]:
    """Put two sets in force by turns, ``count`` times, one as soon as the other is and at most `PACE` a second.

    Give all answers, and those that no single set gives.
    """
    issuers = {name: Issuer("https://issuer.test") for name in _NAMES}
    sets = [
        _SET.format(name=name, other=other, jwks=json.dumps(issuers[name].jwks()))
        for name, other in (_NAMES, _NAMES[::-1])
    ]
    tokens = {
        name: issuer.sign({"sub": "alice", "exp": int(time.time()) + 3600}, algorithm="ES256")
        for name, issuer in issuers.items()
    }

    def requests() -> Iterator[Exchange]:
        for number in itertools.count():
            name = _NAMES[number % 2]
            yield get_exchange(f"/{name}?{number}", "httpbin")
            authorization = ("authorization", f"Bearer {tokens[name]}")
            yield get_exchange(f"/token-{name}?{number}", "httpbin", [authorization])

    names = ("authz",) if flags else ("authz-0",)
    with running(directory, names, "--transport", transport, *flags, policy=sets[0]) as parts:
        (replica,) = parts.replicas
        with load(parts.envoy, requests(), rate) as seen:
            begun = time.monotonic()
            for generation in range(2, count + 2):
                time.sleep(max(0.0, begun + (generation - 2) / PACE - time.monotonic()))
                written = parts.policies / ".p.yaml"
                written.write_text(sets[(generation - 1) % 2])
                written.rename(parts.policies / "p.yaml")
                os.kill(replica.child.pid, signal.SIGHUP)
                replica.wait_for_log(f"resources, generation {generation}\n")
    return seen, [answer for answer in seen.parsed() if not _right(answer)]


def crashes(directory: Path, transport: str, rate: float, count: int, *flags: str) -> Seen:
    """Kill the only replica, or each worker of it, ``count`` times, and start it again or see it replaced."""
    names = ("authz",) if flags else ("authz-0",)
    with running(directory, names, "--transport", transport, *flags) as parts:
        (replica,) = parts.replicas
        with load(parts.envoy, good_and_bad(), rate) as seen:
            for _ in range(count):
                if flags:
                    known = replica.workers()
                    for pid in known:
                        os.kill(pid, signal.SIGKILL)
                    replica.wait_for_others(known)
                else:
                    os.kill(replica.child.pid, signal.SIGKILL)
                    replica.child.stop()
                    replica.start()
                parts.healthy(2 if flags else 1)
                before = outcomes(seen)["/good", 200]
                wait_until("recovering", lambda: outcomes(seen)["/good", 200] > before or None, within=20)  # noqa: B023
    return seen


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and end with 1 if a caller saw what it should not."""
    parser = argparse.ArgumentParser(prog="make lifecycle", description=__doc__)
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", default=[])
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--restart-rate", type=float, default=1000, help="requests a second beside restarts")
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--reload-rate", type=float, default=500, help="requests a second beside reloads")
    parser.add_argument("--crashes", type=int, default=5)
    parser.add_argument("--crash-rate", type=float, default=500, help="requests a second beside crashes")
    options = parser.parse_args(arguments)
    wrong = 0
    for transport in options.transport or TRANSPORTS:
        with _scratch() as directory:
            seen = restarts(directory, transport, options.restart_rate, options.restarts)
        wrong += _unexpected(seen, {("/good", 200), ("/bad", 403)})
        _say(f"{transport}, {options.restarts} restarts at {options.restart_rate:g}/s", seen)
        for flags in _SHAPES:
            with _scratch() as directory:
                seen, mixed = reloads(directory, transport, options.reload_rate, options.reloads, *flags)
            wrong += len(mixed)
            _say(f"{transport} {' '.join(flags)}, {options.reloads} reloads at {options.reload_rate:g}/s", seen)
            sys.stdout.write(f"    answers that no single set gives: {mixed[:5]}\n")
        for flags in _SHAPES:
            with _scratch() as directory:
                seen = crashes(directory, transport, options.crash_rate, options.crashes, *flags)
            wrong += _unexpected(seen, {("/good", 200), ("/good", 503), ("/bad", 403), ("/bad", 503)})
            _say(f"{transport} {' '.join(flags)}, {options.crashes} kill -9 at {options.crash_rate:g}/s", seen)
    return 1 if wrong else 0


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lc-") as directory:
        yield Path(directory)


def _unexpected(seen: Seen, expected: set[tuple[str, int]]) -> int:
    return sum(count for each, count in outcomes(seen).items() if each not in expected)


def _say(what: str, seen: Seen) -> None:
    counts: Counter[str] = Counter()
    for answer, count in seen.parsed().items():
        # Whose 503 it is: Envoy's own, or a denial for want of time, which on a machine that is full is to be expected.
        counts[f"{answer.path} {answer.status}" + f" ({answer.reason})" * (answer.status == _UNAVAILABLE)] += count
    listed = ", ".join(f"{each}: {count}" for each, count in sorted(counts.items()))
    sys.stdout.write(f"{what}: {listed}; p99 {seen.p99() * 1000:.1f} ms\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
