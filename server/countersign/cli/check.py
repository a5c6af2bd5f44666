"""`countersign check`: what applies to a workload, as `istioctl x authz check` shows it, of a server or of files."""

import argparse
import http.client
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from typing import Any, Final
from urllib.parse import urlencode

from countersign.cli.config.admin_flags import DEFAULT_ADMIN
from countersign.cli.policies import parse_policies, read_policies
from countersign.edge.addresses import AddressError, TcpAddress, parse_address
from countersign.edge.kubernetes.address import ClusterError
from countersign.explanation.conceal import printable
from countersign.explanation.effective import Effective, effective, from_json, label, workload_named
from countersign.policy.problems import Code, PolicyError
from countersign.policy.workload import WorkloadError

_FINDING, _USAGE, _IO = 1, 2, 3
_SECONDS: Final = 10.0
_MAX_ANSWER: Final = 32 * 1024 * 1024
_OK, _REFUSED = 200, 400
_EMPTY: Final = "No AuthorizationPolicy is in force here: whatever mTLS and tokens let through is allowed."


class _UsageError(ValueError):
    """What was asked for cannot be answered."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which workload, and who knows."""
    parser.epilog = "Exit code: 0 policies are in force, 1 none is, 2 usage or broken policies, 3 I/O."
    add = parser.add_argument
    add("--workload", metavar="NS/APP", required=True, help="its namespace, and its label app=APP; NS for one without")
    add("--label", metavar="K=V", action="append", default=[], help="another of its labels; repeatable")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--admin", metavar="HOST:PORT", type=_tcp, default=DEFAULT_ADMIN, help="a server's (default: %(default)s)"
    )
    where.add_argument(
        "--policies", metavar="PATH", action="append", help="no server: files, or kubernetes://; repeatable"
    )
    add("--root-namespace", metavar="NS", default="istio-system", help="with --policies (default: %(default)s)")
    add("--namespace", metavar="NS", default="", help="with --policies: of resources that do not name theirs")
    add("-o", "--output", "--format", choices=("text", "json"), default="text", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0: policies are in force for it; 1: none is."""
    try:
        workload = workload_named(arguments.workload, tuple(map(label, arguments.label)))
        if arguments.policies:
            loaded, _ = parse_policies(read_policies(arguments.policies), arguments.namespace)
            found = effective(loaded.resources, workload, arguments.root_namespace)
        else:
            found = from_json(_asked(arguments.admin, arguments.workload, arguments.label))
    except PolicyError as error:
        print(f"countersign check: the policies cannot be used\n{error}", file=sys.stderr)
        return _IO if all(problem.code is Code.UNREADABLE_FILE for problem in error.problems) else _USAGE
    except (WorkloadError, ClusterError, _UsageError) as error:
        print(f"countersign check: {printable(str(error))}", file=sys.stderr)
        return _USAGE
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(json.dumps(asdict(found), indent=2) if arguments.output == "json" else "\n".join(_text(found)))
    return 0 if any(not policy.dry_run for policy in found.authorization_policies) else _FINDING


def _asked(address: TcpAddress, workload: str, labels: Sequence[str]) -> Any:  # noqa: ANN401 (`from_json` looks at it)
    """What the server says. Raise OSError, or `_UsageError` for what it refuses."""
    query = urlencode([("workload", workload), *(("label", text) for text in labels)])
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    try:
        connection.request("GET", f"/policies?{query}")
        response = connection.getresponse()
        answer = json.loads(response.read(_MAX_ANSWER))
    except (http.client.HTTPException, ValueError, RecursionError) as error:
        raise OSError(f"http://{address}: no admin API of countersign: {type(error).__name__}") from error
    except OSError as error:
        raise OSError(f"http://{address}: {error.strerror or error}; is `serve --admin` there?") from error
    finally:
        connection.close()
    if response.status == _OK:
        return answer
    why = answer.get("error") if isinstance(answer, dict) else None
    if response.status == _REFUSED:
        raise _UsageError(f"http://{address}: {why}")
    raise OSError(printable(f"http://{address}: status {response.status}: {why}"))


def _text(found: Effective) -> Iterator[str]:
    rows = [
        (f"{each.action} (dry run)" if each.dry_run else each.action, each.policy, str(len(each.rules)))
        for each in found.authorization_policies
    ]
    yield from _table(("ACTION", "AuthorizationPolicy", "RULES"), rows)
    if not any(not each.dry_run for each in found.authorization_policies):
        yield _EMPTY
    yield ""
    modes = [
        (str(each.port or "*"), each.policy or "(Istio's default)", each.mode) for each in found.peer_authentication
    ]
    yield from _table(("PORT", "PeerAuthentication", "MODE"), modes)
    issuers = [(issuer, each.policy) for each in found.request_authentications for issuer in each.issuers]
    if issuers:
        yield ""
        yield from _table(("ISSUER", "RequestAuthentication"), issuers)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        return
    cells = [head, *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _tcp(text: str) -> TcpAddress:
    try:
        address = parse_address(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not isinstance(address, TcpAddress):
        raise argparse.ArgumentTypeError(f"`{text}` is no host:port, such as {DEFAULT_ADMIN}")
    return address
