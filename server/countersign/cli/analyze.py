"""`countersign analyze`: every problem of policy files, before they are in force."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from countersign.cli.mesh_flags import add_name_flags
from countersign.cli.policies import read_policies
from countersign.cli.problem_formats import FORMATS, count
from countersign.core.posture import Posture
from countersign.core.spiffe import is_trust_domain
from countersign.edge.kubernetes.address import ClusterError
from countersign.edge.kubernetes.placed import placed
from countersign.edge.policy_files import parse_files
from countersign.explanation.conceal import printable
from countersign.policy.analysis.analyze import Written, analyze
from countersign.policy.analysis.surroundings import Surroundings
from countersign.policy.parse import errors_in
from countersign.policy.problems import PolicyError, Problem
from countersign.policy.workload import Workload, WorkloadError, workload_of
from countersign.tokens.keys import KeySet

_FINDING: Final = 1
_USAGE: Final = 2
_IO: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at, what is known of the mesh, and how to say it."""
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", help="file or directory of Istio YAML, or kubernetes://")
    add_name_flags(parser)
    add("--namespace", metavar="NS", default="", help="of resources that do not name theirs")
    add(
        "--workload",
        metavar="NS/NAME:K=V,...",
        action="append",
        default=[],
        help="a workload that exists: policies that apply to none are told; repeatable",
    )
    add("-o", "--output", choices=sorted(FORMATS), default="text", help="default: %(default)s")
    add("--fail-on", choices=["error", "warning"], default="error", help="when to exit with 1 (default: %(default)s)")


class _UsageError(ValueError):
    """A flag that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    problems: tuple[Problem, ...]
    resources: int


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0: nothing to fail on; 1: problems, or no policy at all; 2: no cluster; 3: a file cannot be read."""
    try:
        surroundings = _surroundings(arguments)
    except _UsageError as error:
        print(f"countersign analyze: {error}", file=sys.stderr)
        return _USAGE
    show = FORMATS[arguments.output]
    try:
        texts = read_policies(arguments.paths)
    except ClusterError as error:
        print(f"countersign analyze: {printable(str(error))}", file=sys.stderr)
        return _USAGE
    except PolicyError as error:
        print(show(error.problems, len({problem.position.file for problem in error.problems})), end="")
        return _IO
    result = _look(texts, arguments.namespace, surroundings)
    print(show(result.problems, len(texts)), end="")
    if not result.resources and not result.problems:
        where = ", ".join(arguments.paths)
        print(f"countersign analyze: no policy in {where}, and `serve` would deny every request", file=sys.stderr)
        return _FINDING
    if not result.problems:
        print(f"no problems in {count(len(texts), 'file')}, {count(result.resources, 'resource')}", file=sys.stderr)
    failing = result.problems if arguments.fail_on == "warning" else errors_in(result.problems)
    return _FINDING if failing else 0


def _look(texts: Mapping[str, str], namespace: str, surroundings: Surroundings) -> _Result:
    """Everything about all files. Beside broken files the others are still judged, each resource by itself."""
    broken: set[str] = set()
    try:
        loaded, inline = parse_files(texts, namespace)
        problems = loaded.warnings
    except PolicyError as error:
        broken = {problem.position.file for problem in errors_in(error.problems)}
        loaded, inline = parse_files({name: text for name, text in texts.items() if name not in broken}, namespace)
        problems = error.problems
    written = Written(
        resources=loaded.resources,
        texts=texts,
        unusable_keys={source: _unusable(keys) for source, keys in inline.items()},
        complete=not broken,
    )
    found = sorted([*problems, *analyze(written, surroundings)], key=lambda problem: problem.position)
    return _Result(problems=tuple(placed(found, texts)), resources=len(loaded.resources))


def _unusable(keys: KeySet) -> list[str]:
    return [f"number {key.index + 1}, `{key.kid}`, {key.why}" for key in keys.rejected]


def _surroundings(arguments: argparse.Namespace) -> Surroundings:
    domains = (arguments.trust_domain, *arguments.trust_domain_alias)
    for domain in domains:
        if not is_trust_domain(domain):
            raise _UsageError(f"trust domain `{domain}`: lower-case letters, digits, `.`, `-` and `_` only")
    return Surroundings(
        trust_domains=domains,
        root_namespace=arguments.root_namespace,
        posture=Posture(arguments.posture),
        workloads=dict(map(_workload, arguments.workload)),
    )


def _workload(text: str) -> tuple[str, Workload]:
    name, colon, labels = text.partition(":")
    namespace, slash, short = name.partition("/")
    pairs = [label.partition("=") for label in labels.split(",")] if colon else []
    if not namespace or not slash or not short or "/" in short or not all(key and equals for key, equals, _ in pairs):
        raise _UsageError(f"--workload {text}: wants NS/NAME:K=V,..., such as apps/shop:app=shop")
    try:
        return name, workload_of(namespace, tuple(sorted((key, value) for key, _, value in pairs)))
    except WorkloadError as error:
        raise _UsageError(f"--workload {text}: {error}") from error
