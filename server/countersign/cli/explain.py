"""`countersign explain`: one request against policies, without a server: the decision, and why."""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from countersign.authorize import judge
from countersign.cli.described import add_request_flags, description, refuse_description, text_or_file
from countersign.cli.explanation_text import Style, as_text
from countersign.cli.mesh_flags import DEFAULT_POLICIES, add_mesh_flags, mesh_of
from countersign.cli.policies import parse_policies, read_policies
from countersign.cli.times import moment
from countersign.core.decision import Deny
from countersign.core.facts import RequestFacts
from countersign.core.jwt_rule import KeySource, RemoteKeys
from countersign.edge.kubernetes.address import ClusterError
from countersign.edge.kubernetes.placed import placed
from countersign.edge.recorded import RecordedError, read_recorded
from countersign.explanation.conceal import printable, without_tokens
from countersign.explanation.described import described_request, towards
from countersign.explanation.described_peer import DescriptionError
from countersign.explanation.explained import Judged, explained, jwt_rules
from countersign.explanation.form import Explanation, as_json
from countersign.judgement import Judgement, Step
from countersign.policy.problems import Code, PolicyError
from countersign.policy.resources import Resources
from countersign.policy.scope import PolicySet
from countersign.settings import SettingsError, refuse_impossible
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.assume import assume_claims, assume_signatures, parse_claims
from countersign.tokens.authenticate import authenticate
from countersign.tokens.jose import TokenError, UnverifiedToken
from countersign.tokens.keys import KeySet, KeySetError
from countersign.tokens.strict_json import JsonError, loads

_ALLOWED, _DENIED, _USAGE, _IO = 0, 1, 2, 3
_GENERATION: Final = 1
_PURPOSE: Final = "Flags describe the request, or --request has one that was recorded. No keys are fetched."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A request, the claims that are given for it, and the time at which it is asked."""

    facts: RequestFacts | Deny
    claims: UnverifiedToken | None
    now: float
    notes: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `explain`."""
    parser.epilog = f"{_PURPOSE} Exit code: 0 allowed, 1 denied, 2 wrong usage or broken policies, 3 I/O."
    add = parser.add_argument
    add(
        "--policies",
        metavar="PATH",
        action="append",
        help=f"file or directory of Istio YAML, or kubernetes://; repeatable (default: {DEFAULT_POLICIES})",
    )
    add_request_flags(parser)
    add("--request", metavar="FILE[:LINE]", help="a recorded CheckRequest as JSON, or one line of many")
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--claims", metavar="JSON|@FILE", help="the claims of a token; no signature is checked")
    token.add_argument("--token", metavar="JWT|@FILE", help="a bearer token (others: --header, or in the path)")
    add("--jwks", metavar="FILE", help="the keys of every issuer that the policies name by `jwksUri`")
    add("--time", metavar="TIME", type=moment, help="ISO 8601 with a zone, or seconds since 1970 (default: now)")
    add_mesh_flags(parser)
    add("-o", "--output", choices=("text", "json"), default="text", help="the form of the answer")
    add("--exit-zero", action="store_true", help="exit with 0 for a denial too")


def run(arguments: argparse.Namespace) -> int:
    """Explain one request; give the exit code."""
    try:
        mesh = towards(mesh_of(arguments), arguments.to)
        refuse_impossible(mesh)
        question = _question(arguments, mesh)
        told = _explain(question, arguments, mesh)
    except PolicyError as error:
        print(f"countersign explain: the policies cannot be used\n{error}", file=sys.stderr)
        unreadable = all(problem.code is Code.UNREADABLE_FILE for problem in error.problems)
        return _IO if unreadable else _USAGE
    except (SettingsError, DescriptionError, RecordedError, KeySetError, ClusterError) as error:
        print(f"countersign explain: {printable(without_tokens(str(error)))}", file=sys.stderr)
        return _USAGE
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(as_json(told) if arguments.output == "json" else as_text(told, _style()))
    return _DENIED if told.decision == "DENY" and not arguments.exit_zero else _ALLOWED


def _question(arguments: argparse.Namespace, mesh: Mesh) -> _Question:
    claims = _claims(arguments.claims)
    if arguments.request is None:
        facts = described_request(description(arguments), mesh)
        now = time.time() if arguments.time is None else arguments.time
        return _Question(facts=facts, claims=claims, now=now, notes=())
    refuse_description(arguments, "--request")
    recorded = read_recorded(arguments.request)
    times = (arguments.time, recorded.time, time.time())
    notes = (f"`{recorded.unread}` is no field of a CheckRequest and was not read",) if recorded.unread else ()
    return _Question(
        facts=recorded.facts, claims=claims, now=next(time for time in times if time is not None), notes=notes
    )


def _claims(text: str | None) -> UnverifiedToken | None:
    if text is None:
        return None
    claims = text_or_file("--claims", text)
    try:
        if not isinstance(loads(claims), dict):
            raise DescriptionError(
                '--claims: not a JSON object, such as {"iss": "https://idp.example", "sub": "alice"}'
            )
        return parse_claims(claims)
    except JsonError as error:
        raise DescriptionError(f"--claims: {error}{f', {error.place}' if error.place else ''}") from error
    except TokenError as error:
        raise DescriptionError(f"--claims: {error}") from error


def _explain(question: _Question, arguments: argparse.Namespace, mesh: Mesh) -> Explanation:
    texts = read_policies(arguments.policies or [DEFAULT_POLICIES])
    loaded, inline = parse_policies(texts, mesh.namespace)
    for warning in placed(loaded.warnings, texts):
        print(warning.render(), file=sys.stderr)
    resources = loaded.resources
    policies = PolicySet(resources, mesh.root_namespace, _GENERATION) if len(resources) else None
    jwks = _jwks(arguments.jwks)
    snapshot = Snapshot(mesh=mesh, policies=policies, keys={**_remote(resources, jwks), **inline})
    judgement, checked = _judgement(question, snapshot, may_wait=jwks is None)
    judged = Judged(
        judgement=judgement,
        facts=None if isinstance(question.facts, Deny) else question.facts,
        claims=question.claims,
        signature_checked=checked,
        notes=question.notes,
    )
    return explained(judged, snapshot)


def _judgement(question: _Question, snapshot: Snapshot, *, may_wait: bool) -> tuple[Judgement, bool]:
    """The judgement, and whether signatures were checked on the way to it."""
    facts, claims, now = question.facts, question.claims, question.now
    posture, keys = snapshot.mesh.posture, snapshot.keys
    if isinstance(facts, Deny):
        return Judgement(step=Step.REQUEST, decision=facts), True
    if claims is not None:
        return judge(facts, snapshot, lambda http, rules: assume_claims(claims, http, rules, now, posture)), False
    judgement = judge(
        facts, snapshot, lambda http, rules: authenticate(http, rules, keys, now, posture, may_wait=may_wait)
    )
    if judgement.awaits:  # serving would fetch them; here the claims are taken as they are
        return judge(facts, snapshot, lambda http, rules: assume_signatures(http, rules, keys, now, posture)), False
    return judgement, True


def _jwks(file: str | None) -> KeySet | None:
    if file is None:
        return None
    try:
        return KeySet.parse(Path(file).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise KeySetError(f"--jwks {file}: not UTF-8 at byte {error.start}") from error
    except KeySetError as error:
        raise KeySetError(f"--jwks {file}: {error}") from error


def _remote(resources: Resources, jwks: KeySet | None) -> Mapping[KeySource, KeySet]:
    if jwks is None:
        return {}
    return {rule.keys: jwks for rule in jwt_rules(resources) if isinstance(rule.keys, RemoteKeys)}


def _style() -> Style:
    """Colour only for a terminal whose user wants it (no-color.org); marks that the terminal can show."""
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return Style(colour=terminal and not os.environ.get("NO_COLOR"), unicode=unicode)
