"""The material of one run of the benchmark, in a directory of its own."""

import datetime as dt
import itertools
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from countersign.mesh.certificates import write_certificates
from countersign.mesh.issuer import Issuer
from countersign.mesh.process import Child, wait_until

from bench import material
from bench.envoy import BenchEnvoy, by_status, client_tls, ext_authz_filter, get
from bench.http2 import Exchange, Load, grpc_exchange

HOT_RULES: Final = 10

_CPU: Final = 1
_WITHIN: Final = 30.0


class Bench:
    """The material of one run, in a directory of its own. ``jwks_uri`` is where the issuer's keys are."""

    def __init__(self, directory: Path, issuer: Issuer, jwks_uri: str) -> None:
        self.directory = directory
        self.issuer = issuer
        self.jwks_uri = jwks_uri
        write_certificates(directory, dt.datetime.now(dt.UTC))
        self.hot = material.tokens(self.issuer, "RS256", 1)
        self.recorded = self._record()

    def checks(self, rules: int, tokens: Sequence[str], form: Callable[[bytes], bytes] = bytes) -> list[Exchange]:
        """The recorded CheckRequest for each token, to the path of the last rule, in a ``form`` of its own."""
        messages = material.with_tokens(self.recorded, material.request_path(rules), tokens)
        return [grpc_exchange(material.CHECK, form(message)) for message in messages]

    def new_checks(self, rules: int, count: int) -> list[Exchange]:
        """So many checks of which no two ask the same, with one token, let pass by the last rule."""
        messages = material.with_paths(self.recorded, material.request_path(rules), self.hot[0], count)
        return [grpc_exchange(material.CHECK, message) for message in messages]

    def policies(self, rules: int) -> Path:
        """A file of Istio's YAML."""
        file = self.directory / f"policies-{rules}.yaml"
        if not file.exists():
            file.write_text(material.istio(rules, self.issuer), encoding="utf-8")
        return file

    def _record(self) -> bytes:
        """Let the real Envoy say what it sends for the benchmark's request."""
        address, file = self.directory / "record.sock", self.directory / "recorded.bin"
        command = [sys.executable, str(Path(__file__).with_name("record.py")), f"unix:{address}", str(file)]
        recorder = Child("recorder", command, directory=self.directory)
        try:
            wait_until("starting the recorder", lambda: address.exists() or None, within=_WITHIN, child=recorder)
            with BenchEnvoy(self.directory, [ext_authz_filter()], address, _CPU) as envoy:
                load = Load(("127.0.0.1", envoy.port), by_status, tls=client_tls(self.directory))
                request = get(material.request_path(HOT_RULES), self.hot[0])
                load.closed_loop(itertools.repeat(request), _WITHIN, 1, at_most=1)
                load.close()
            return file.read_bytes()
        finally:
            recorder.stop()


def free_port() -> int:
    """A port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
