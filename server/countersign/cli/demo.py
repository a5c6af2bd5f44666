"""`countersign demo`: the local mesh on the real Envoy, and the parts of it that docker compose runs one by one."""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, Final

_OK, _FINDING, _IO, _INTERRUPTED = 0, 1, 3, 130
_WATCH: Final = 0.5  # seconds between two looks at the processes of a mesh that is kept
_IN_PACKAGE: Final = Path(__file__).resolve().parents[1] / "mesh" / "envoy"  # of a wheel
_IN_CHECKOUT: Final = Path(__file__).resolve().parents[3] / "envoy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `countersign demo`, and its parts for docker compose."""
    parser.add_argument("--keep", action="store_true", help="leave the mesh running and print commands to try by hand")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="the form of the rows")
    parser.add_argument(
        "--configs",
        type=Path,
        default=_IN_PACKAGE if _IN_PACKAGE.is_dir() else _IN_CHECKOUT,
        metavar="DIR",
        help="the Envoy configurations and policies (default: the demo's own)",
    )
    parser.set_defaults(part=None)
    parts = parser.add_subparsers(title="parts of the mesh, for docker compose", metavar="PART")
    certificates = parts.add_parser("certificates", help="make a CA and the certificates of the workloads")
    certificates.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write them")
    certificates.set_defaults(part=_certificates)
    for name, part, purpose in (
        ("issuer", _issuer, "serve /jwks.json and print tokens that are good for an hour"),
        ("upstream", _upstream, "serve an application that echoes what it received"),
    ):
        server = parts.add_parser(name, help=purpose)
        server.add_argument("--listen", type=_address, required=True, metavar="HOST:PORT", help="where to listen")
        server.set_defaults(part=part)
        if name == "issuer":
            minter = "a unix socket for `walk`: it mints the scenario's tokens, and rotates keys"
            server.add_argument("--minter", type=Path, metavar="SOCKET", help=minter)
    _add_walk(parts.add_parser("walk", help="ask the mesh of docker compose, from inside, and show what it decides"))


def _add_walk(parser: argparse.ArgumentParser) -> None:
    for name in ("sleep", "edge", "httpbin"):
        parser.add_argument(
            f"--{name}", type=_address, required=True, metavar="HOST:PORT", help="where its Envoy listens"
        )
    for name, purpose in (
        ("certificates", "the workloads' certificates"),
        ("policies", "where Countersign reads its policies"),
        ("minter", "the issuer's unix socket"),
        ("decisions", "Countersign's log of decisions"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH", help=purpose)
    parser.set_defaults(part=_walk)


def run(args: argparse.Namespace) -> int:
    """Run the demo, or the part of it that was asked for; give the exit code."""
    from countersign.mesh.process import MeshError  # noqa: PLC0415 (`countersign --help` stays light)

    with _ended_by_signals():
        try:
            return int((args.part or _demo)(args))
        except (MeshError, OSError) as error:
            print(f"countersign demo: {error}", file=sys.stderr)
            return _IO
        except KeyboardInterrupt:
            return _INTERRUPTED


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """An ending unwinds the stack: what runs is taken down in order, and further signals cannot cut that short."""
    from countersign.mesh.interrupts import ENDINGS  # noqa: PLC0415

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # Under nohup a hang-up is to be ignored, and stays so.
    numbers = [number for number in ENDINGS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is end:  # else an ending is under way, up to the process's own
                signal.signal(number, handler)


def _demo(args: argparse.Namespace) -> int:
    from countersign.mesh.mesh import running_mesh  # noqa: PLC0415
    from countersign.mesh.run import walk  # noqa: PLC0415
    from countersign.mesh.scenario import SCENARIO  # noqa: PLC0415

    started = time.monotonic()
    with running_mesh(args.configs) as mesh:
        rows = tuple(walk(mesh, SCENARIO))
        code = report(rows, time.monotonic() - started, args.output)
        if args.keep:
            _keep(mesh)
    return code


def _walk(args: argparse.Namespace) -> int:
    """Every row of the scenario that needs no host; 0 if all of them are right."""
    from countersign.mesh.composed import WALK, Composed, left_out  # noqa: PLC0415
    from countersign.mesh.run import walk  # noqa: PLC0415

    started = time.monotonic()
    mesh = Composed(
        sleep=args.sleep,
        edge=args.edge,
        httpbin=args.httpbin,
        certificates=args.certificates,
        policies=args.policies,
        minter=args.minter,
        decisions=args.decisions,
        read_from=args.decisions.stat().st_size,
    )
    code = report(tuple(walk(mesh, WALK)), time.monotonic() - started, args.output)
    if args.output == "text":
        print(f"\n{left_out()}")
    return code


def report(rows: tuple[Any, ...], seconds: float, form: str) -> int:
    """Print the rows; give 1 if any of them is not what it should be."""
    from countersign.mesh import table  # noqa: PLC0415

    if form == "json":
        print(table.as_json(rows, seconds))
    else:
        if sys.stdout.isatty() and find_spec("rich") is not None:  # an extra, which the image does without
            table.print_on_terminal(rows)
        else:
            print(table.as_text(rows))
        print(f"\n{table.verdict(rows, seconds)}")
    return _OK if rows and all(row.right for row in rows) else _FINDING


def _keep(mesh: Any) -> None:  # noqa: ANN401 (a Mesh; naming it here would import it)
    """Leave the mesh running until somebody ends it, or one of its processes has ended."""
    from countersign.mesh.by_hand import commands  # noqa: PLC0415
    from countersign.mesh.process import MeshError  # noqa: PLC0415

    print(f"\nThe mesh keeps running in {mesh.directory}. Try:")
    for purpose, command in commands(mesh):
        print(f"\n  # {purpose}\n  {command}")
    print(f"\nEdit a file in {mesh.policies} and ask again. Ctrl-C ends everything.", flush=True)
    try:
        while all(child.exit_code is None for child in mesh.children()):
            time.sleep(_WATCH)
    except KeyboardInterrupt:
        print()
        return
    ended = next(child for child in mesh.children() if child.exit_code is not None)
    raise MeshError(f"{ended.name} exited with {ended.exit_code}; it said:{ended.last_lines()}")


def _certificates(args: argparse.Namespace) -> int:
    import datetime as dt  # noqa: PLC0415

    from countersign.mesh.certificates import LIFETIME, WORKLOADS, write_certificates  # noqa: PLC0415

    write_certificates(args.out, dt.datetime.now(dt.UTC))
    names = ", ".join(workload.name for workload in WORKLOADS)
    print(f"certificates of {names} in {args.out}, good for {LIFETIME.total_seconds() / 3600:g} hours")
    return _OK


def _issuer(args: argparse.Namespace) -> int:
    from countersign.mesh.issuer import Issuer  # noqa: PLC0415
    from countersign.mesh.key_server import key_server  # noqa: PLC0415
    from countersign.mesh.minter import minting  # noqa: PLC0415
    from countersign.mesh.scenario import AUDITOR_TOKEN, GUEST_TOKEN, ISSUER, STAFF_TOKEN  # noqa: PLC0415
    from countersign.mesh.tokens import mint  # noqa: PLC0415

    issuer = Issuer(ISSUER)
    for token in (STAFF_TOKEN, AUDITOR_TOKEN, GUEST_TOKEN):
        print(f"{token.label}:\n{mint(issuer, token, time.time())}\n")
    with contextlib.nullcontext() if args.minter is None else minting(issuer, args.minter):
        return _serve(key_server(issuer, *args.listen))


def _upstream(args: argparse.Namespace) -> int:
    from countersign.mesh.upstream import upstream  # noqa: PLC0415

    return _serve(upstream(*args.listen))


def _serve(server: Any) -> int:  # noqa: ANN401 (an HttpServer; naming it here would import it)
    """Serve until a signal says otherwise."""
    with server:
        print(f"listening on port {server.port}", flush=True)
        try:
            while True:
                time.sleep(_WATCH)
        except KeyboardInterrupt:
            return _OK


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 (the largest port)
        raise argparse.ArgumentTypeError(f"`{text}` is not HOST:PORT")
    return host.strip("[]"), int(port)
