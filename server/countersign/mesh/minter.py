"""Asks the issuer of docker compose for tokens and new keys, over a unix socket that only it and `demo` share.

It signs the tokens of the scenario and no others, with keys that were made at its start. No port leads here: neither
the host nor another container can ask. One JSON line is the question, one the answer.
"""

import contextlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from countersign.mesh.issuer import ALGORITHMS, Issuer
from countersign.mesh.process import MeshError
from countersign.mesh.scenario import SCENARIO, Token
from countersign.mesh.tokens import mint

_PATIENCE: Final = 5.0  # seconds for a question or an answer
BETWEEN: Final = 1.5  # seconds between two rotations: more than `keys.cooldown` in envoy/settings/countersign.yaml
_MAX: Final = 64 * 1024  # bytes of either
_TOKENS: Final = {step.token.label: step.token for step in SCENARIO if step.token is not None}


@contextlib.contextmanager
def minting(issuer: Issuer, path: Path) -> Iterator[None]:
    """Answer on this socket until the context is left. What an earlier run left there is replaced."""
    if path.is_socket():
        path.unlink()
    # One question at a time: keys are rotated by one thread only.
    server = _Server(issuer, path)
    path.chmod(0o600)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="minter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        path.unlink(missing_ok=True)


def ask_for_token(path: Path, label: str, thumbprint: str = "") -> str:
    """A fresh token of the scenario. ``thumbprint`` is of the certificate that it is for, if it is for one."""
    return str(_ask(path, {"mint": label, "thumbprint": thumbprint})["token"])


def ask_for_new_keys(path: Path) -> None:
    """Let the issuer sign with new keys from now on; the old ones stay published."""
    _ask(path, {"rotate": True})


def _ask(path: Path, question: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(str(path))
            connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer: Mapping[str, Any] = json.loads(stream.readline(_MAX))
    except (OSError, ValueError) as error:
        raise MeshError(f"the issuer, at {path}: {error}") from error
    if "error" in answer:
        raise MeshError(f"the issuer, at {path}: {answer['error']}")
    return answer


class _Server(socketserver.UnixStreamServer):
    def __init__(self, issuer: Issuer, path: Path) -> None:
        self.issuer = issuer
        self._rotated = -BETWEEN + time.monotonic()
        super().__init__(str(path), _Handler)

    def rotate(self) -> None:
        """Not sooner than Countersign looks for unknown keys again."""
        time.sleep(max(0.0, self._rotated + BETWEEN - time.monotonic()))
        for algorithm in ALGORITHMS:
            self.issuer.rotate(algorithm)
        self._rotated = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (the overridden signature)
        """Whoever goes away before its answer is no news."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = _PATIENCE
    server: _Server

    def handle(self) -> None:
        answer = _answer(self.server, self.rfile.readline(_MAX))
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def _answer(server: _Server, line: bytes) -> dict[str, Any]:
    try:
        question = json.loads(line)
    except ValueError:
        question = None
    match question:
        case {"rotate": True}:
            server.rotate()
            return {"rotated": True}
        case {"mint": str(label), "thumbprint": str(thumbprint)} if label in _TOKENS:
            token = _TOKENS[label]
            if bool(token.confirms) != bool(thumbprint):
                return {"error": f"`{label}`: wants a thumbprint if and only if it is for one certificate"}
            return {"token": mint(server.issuer, _confirming(token, thumbprint), time.time())}
    return {"error": "wants {'rotate': true}, or {'mint': LABEL, 'thumbprint': TEXT} with a label of the scenario"}


def _confirming(token: Token, thumbprint: str) -> Token:
    """The token, bound to a certificate that this side never sees (RFC 8705 3.1)."""
    if not thumbprint:
        return token
    return replace(token, confirms="", claims={**token.claims, "cnf": {"x5t#S256": thumbprint}})
