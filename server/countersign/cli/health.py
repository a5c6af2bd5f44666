"""`countersign health`: one GET of /readyz, cheap enough for a container's health check every second."""

import argparse
import socket
import sys
from typing import Final

_SECONDS: Final = 2.0
_MAX_ANSWER: Final = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the probes are."""
    parser.add_argument("--probes", metavar="HOST:PORT", default="127.0.0.1:8282", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 if the process is ready, 1 if it is not, 3 if nobody answers."""
    host, colon, port = arguments.probes.rpartition(":")
    if not colon or not port.isdigit():
        print(f"countersign health: --probes {arguments.probes}: wants HOST:PORT", file=sys.stderr)
        return 2
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS) as connection:
        connection.sendall(f"GET /readyz HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        answer = b""
        while len(answer) < _MAX_ANSWER and (chunk := connection.recv(_MAX_ANSWER)):
            answer += chunk
    head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    print(body.strip() or "no answer")
    return 0 if head.split(" ")[1:2] == ["200"] else 1
