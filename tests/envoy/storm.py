"""Keys that rotate, and tokens with made-up key IDs, under load: real Envoy, real `countersign serve`, real issuers.

``python -m tests.envoy.storm``, which is ``make storm``, measures; `test_storm` counts. The client is an open loop: it
sends when it is time to, whether or not earlier answers have come, so a server that stalls shows in the latencies.
"""

import argparse
import asyncio
import contextlib
import json
import math
import secrets
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from countersign.mesh.countersign import Countersign
from countersign.mesh.envoy import Envoy
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.relocate import Places

from tests.tokens.material import segment

RATE: Final = 300  # good requests a second
_ALGORITHM: Final = "ES256"
_HTTP: Final = "type.googleapis.com/envoy.extensions.filters.http"
_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_LIMIT: Final = 10.0  # seconds for one answer
_SLICES: Final = 10
_BEGIN: Final = b"\n"  # an empty line after the tokens of a flood
_RATIO: Final = 1.5  # p99 under a flood, against that of the undisturbed run

Tokens = Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: ``sent`` on the clock of ``time.monotonic``, ``seconds`` from when it was due to its answer."""

    status: int
    sent: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """The running parts."""

    port: int
    issuers: Mapping[str, IssuerServer]

    def good(self, name: str) -> str:
        """A token of the issuer's current key, made now."""
        issuer = self.issuers[name].issuer
        return issuer.sign({"sub": "alice", "exp": int(time.time()) + 600}, algorithm=_ALGORITHM)

    def made_up(self, name: str) -> str:
        """A token of a key that no issuer has: a kid of its own, the claims of a good one."""
        claims = {"iss": self.issuers[name].issuer.issuer, "sub": "alice", "exp": int(time.time()) + 600}
        head = {"alg": _ALGORITHM, "kid": secrets.token_hex(8), "typ": "JWT"}
        return f"{segment(head)}.{segment(claims)}.{secrets.token_urlsafe(64)}"


@contextlib.contextmanager
def storm(*names: str) -> Iterator[Storm]:
    """An issuer of each name, and Countersign behind Envoy, which answers 200 itself to whatever is let through."""
    with contextlib.ExitStack() as parts:
        directory = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="st-")))
        issuers = {name: parts.enter_context(IssuerServer(Issuer(f"https://{name}.example"))) for name in names}
        policies = directory / "policies.yaml"
        policies.write_text(yaml.safe_dump_all(_policies(issuers)), encoding="utf-8")
        socket = directory / "authz.sock"
        countersign = parts.enter_context(Countersign(socket, policies, directory))
        configuration = directory / "storm.yaml"
        configuration.write_text(json.dumps(_bootstrap(socket)), encoding="utf-8")
        places = Places(addresses={"127.0.0.1:0": ("127.0.0.1", 0)}, paths={str(directory): directory})
        envoy = parts.enter_context(Envoy(configuration, places, directory))
        countersign.wait_ready()
        envoy.wait_ready()
        yield Storm(port=envoy.port("door"), issuers=issuers)


def _policies(issuers: Mapping[str, IssuerServer]) -> Iterator[Mapping[str, Any]]:
    rules = [{"issuer": each.issuer.issuer, "jwksUri": each.jwks_uri} for each in issuers.values()]
    for kind, spec in (
        ("RequestAuthentication", {"jwtRules": rules}),
        ("AuthorizationPolicy", {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]}),
    ):
        metadata = {"name": "users", "namespace": "apps"}
        yield {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _bootstrap(socket: Path) -> Mapping[str, Any]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}
    ext_authz = {
        "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "countersign"}, "timeout": "1s"},
        "encode_raw_headers": True,
    }
    workload = {"check_settings": {"context_extensions": {"workload.namespace": "apps"}}}
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "typed_per_filter_config": {"authz": {"@type": f"{_HTTP}.ext_authz.v3.ExtAuthzPerRoute", **workload}},
    }
    manager = {
        "@type": f"type.googleapis.com/{_MANAGER.replace('filters', 'extensions.filters')}.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "http_filters": [
            {"name": "authz", "typed_config": ext_authz},
            {"name": "router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router"}},
        ],
        "route_config": {"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"filters": [{"name": _MANAGER, "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "admin": {"address": address},
        "static_resources": {
            "listeners": [{"name": "door", "address": address, "filter_chains": [chain]}],
            "clusters": [
                {
                    "name": "countersign",
                    "load_assignment": {"cluster_name": "countersign", "endpoints": [endpoint]},
                    "typed_extension_protocol_options": {options: http2},
                }
            ],
        },
    }


class Load:
    """Requests at a fixed rate over connections that are kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def run(self, tokens: Tokens, rate: float, count: int) -> list[Sample]:
        """Send ``count`` requests, each when it is due, and wait for their answers."""
        begun = time.monotonic()
        tasks = []
        for number in range(count):
            due = begun + number / rate
            await asyncio.sleep(max(due - time.monotonic(), 0))
            tasks.append(asyncio.create_task(self._ask(tokens(), due)))
        return list(await asyncio.gather(*tasks))

    async def close(self) -> None:
        """Close every connection."""
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()

    async def _ask(self, token: str, due: float) -> Sample:
        sent = time.monotonic()
        async with asyncio.timeout(_LIMIT):
            reader, writer = self._idle.pop() if self._idle else await self._open()
            writer.write(f"GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next((line[15:] for line in head.split("\r\n") if line.startswith("content-length:")), "0")
            await reader.readexactly(int(length))
        self._idle.append((reader, writer))
        return Sample(status=int(head[9:12]), sent=sent, seconds=time.monotonic() - due)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)


def p99(samples: Sequence[Sample]) -> float:
    """The 99th percentile of the latencies, in seconds."""
    ordered = sorted(sample.seconds for sample in samples)
    return ordered[math.ceil(len(ordered) * 0.99) - 1]


def statuses(samples: Sequence[Sample]) -> dict[int, int]:
    """How many answers of each status."""
    return dict(Counter(sample.status for sample in samples))


async def rotation(running: Storm, name: str, seconds: float, *, keep_old: bool) -> tuple[list[Sample], list[Sample]]:
    """Rotate half-way. Give the requests, and apart from them those that the rotation caught on their way.

    The issuer signs with a key from the moment on that it is published. Without overlap, the old one is withdrawn in
    the same moment, so a token of it that has not been answered by then is no longer a good one.
    """
    load = Load(running.port)
    rotated: list[float] = []

    def turn() -> None:
        running.issuers[name].issuer.rotate(_ALGORITHM, keep_old=keep_old)
        rotated.append(time.monotonic())

    asyncio.get_running_loop().call_later(seconds / 2, turn)
    samples = await load.run(lambda: running.good(name), RATE, int(seconds * RATE))
    await load.close()
    (moment,) = rotated
    caught = [each for each in samples if not keep_old and each.sent <= moment < each.sent + each.seconds]
    return [each for each in samples if each not in caught], caught


async def flood(running: Storm, name: str, seconds: float, made_up: int) -> tuple[list[Sample], dict[int, int]]:
    """Good requests, and beside them ``made_up`` tokens, all within so many seconds: the first, and how the others end.

    The others come from a process of their own: what this one had to do for them would slow the good ones.
    """
    texts = [running.good(name) for _ in range(int(seconds * RATE))]
    good = Load(running.port)
    if not made_up:
        samples = await good.run(iter(texts).__next__, RATE, len(texts))
        await good.close()
        return samples, {}
    tokens = "".join(f"{running.made_up(name)}\n" for _ in range(made_up)).encode()
    command = [sys.executable, "-m", "tests.envoy.storm", "--flood", str(running.port), "--seconds", str(seconds)]
    child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    if child.stdin is None or child.stdout is None:
        raise AssertionError("both are pipes")
    try:
        child.stdin.write(tokens + _BEGIN)
        await asyncio.wait_for(child.stdout.readline(), _LIMIT)  # it is about to begin
        samples = await good.run(iter(texts).__next__, RATE, len(texts))
        ended = json.loads(await asyncio.wait_for(child.stdout.readline(), _LIMIT))
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        await child.wait()
        await good.close()
    return samples, {int(status): count for status, count in ended.items()}


async def _send_flood(port: int, seconds: float) -> None:
    """The process of made-up tokens: they come on standard input, and go out evenly."""
    tokens = list(iter(sys.stdin.readline, _BEGIN.decode()))
    _say("ready")
    load = Load(port)
    samples = await load.run(iter(token.strip() for token in tokens).__next__, len(tokens) / seconds, len(tokens))
    await load.close()
    _say(json.dumps(statuses(samples)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and end with 1 if good tokens are refused or slowed, or issuers asked too often."""
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--made-up", type=int, default=10_000, help="tokens with made-up key IDs")
    parser.add_argument("--flood", type=int, metavar="PORT", help="only send the made-up tokens of standard input")
    options = parser.parse_args(arguments)
    if options.flood:
        asyncio.run(_send_flood(options.flood, options.seconds))
        return 0
    return asyncio.run(_measure(options.seconds, options.made_up))


async def _measure(seconds: float, made_up: int) -> int:
    faults = 0
    with storm("overlap", "sudden", "flooded") as running:
        for name, keep_old in (("overlap", True), ("sudden", False)):
            samples, caught = await rotation(running, name, seconds, keep_old=keep_old)
            fetches = running.issuers[name].fetches
            _say(f"rotation, {name}: {statuses(samples)}, {len(caught)} caught on their way, {fetches} fetches")
            faults += sum(each.status == 401 for each in samples)
        calm: list[Sample] = []
        good: list[Sample] = []
        bad: Counter[int] = Counter()
        before, began = running.issuers["flooded"].fetches, time.monotonic()
        for _ in range(_SLICES):  # by turns, so that whatever else the machine does slows both
            calm += (await flood(running, "flooded", seconds / _SLICES, 0))[0]
            slice_of_good, slice_of_bad = await flood(running, "flooded", seconds / _SLICES, made_up // _SLICES)
            good += slice_of_good
            bad.update(slice_of_bad)
        fetches = running.issuers["flooded"].fetches - before
        ratio = p99(good) / p99(calm)
        _say(f"undisturbed: {statuses(calm)}, {_latencies(calm)}")
        _say(f"beside {bad.total()} made-up tokens ({dict(bad)}): {statuses(good)}, {_latencies(good)}")
        _say(f"p99 is {ratio:.2f} of the undisturbed one; {fetches} fetches in {time.monotonic() - began:.0f} s")
        faults += sum(each.status == 401 for each in good) + (ratio > _RATIO)
    return 1 if faults else 0


def _latencies(samples: Sequence[Sample]) -> str:
    middle = statistics.median(sample.seconds for sample in samples)
    return f"median {middle * 1000:.1f} ms, p99 {p99(samples) * 1000:.1f} ms"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
