"""`countersign token inspect`: what a token says, and whether it is true."""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from countersign.cli.times import moment
from countersign.cli.token_report import REFUSED, Checked, Report, as_json, as_text, check, report
from countersign.core.jwt_rule import InlineKeys, JwtRule, KeySource
from countersign.core.posture import Posture
from countersign.edge.keys.access import Access
from countersign.edge.keys.fetch import FetchError, get
from countersign.edge.keys.files import read_text
from countersign.edge.policy_files import parse_files, read_files
from countersign.explanation.conceal import printable
from countersign.policy.problems import Code, PolicyError
from countersign.snapshot import Mesh
from countersign.tokens.keys import KeySet, KeySetError
from countersign.tokens.peek import Peeked, peek

SUMMARY: Final = "header, claims, times in words, and whether keys and policies accept it"

_FINDING, _USAGE, _IO = 1, 2, 3
_MAX_INPUT: Final = 1024 * 1024  # characters
_TIMEOUT: Final = 10.0  # seconds, for the keys of --jwks
_BEARER: Final = "bearer "
_BY_KEYS_ALONE: Final = JwtRule(issuer="", keys=InlineKeys(""), policy="", source="")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The token, and what it is held against."""
    parser.epilog = (
        "Without --jwks and --policies nothing is verified. The signature is never printed. "
        "Exit code: 0 verified, or not checked, 1 refused, 2 wrong usage or broken policies, 3 I/O."
    )
    add = parser.add_argument
    add("token", metavar="TOKEN|-", nargs="?", default="-", help="default: standard input, which no history keeps")
    add("--jwks", metavar="FILE|URL", help="the keys to verify with; for policies, those of every `jwksUri`")
    add("--policies", metavar="PATH", action="append", help="file or directory of Istio YAML; repeatable")
    add("--posture", choices=list(map(str, Posture)), default="strict", help="default: %(default)s")
    add("--time", metavar="TIME", type=moment, help="ISO 8601 with a zone, or seconds since 1970 (default: now)")
    add("-o", "--output", choices=("text", "json"), default="text", help="the form of the answer")


def run(arguments: argparse.Namespace) -> int:
    """Inspect one token; give the exit code. Raise OSError where the input cannot be read."""
    try:
        told = _inspect(arguments)
    except PolicyError as error:
        print(f"countersign token inspect: the policies cannot be used\n{error}", file=sys.stderr)
        return _IO if all(problem.code is Code.UNREADABLE_FILE for problem in error.problems) else _USAGE
    except KeySetError as error:
        print(f"countersign token inspect: --jwks {printable(arguments.jwks)}: no key set: {error}", file=sys.stderr)
        return _USAGE
    except FetchError as error:
        print(f"countersign token inspect: --jwks {printable(arguments.jwks)}: {error}", file=sys.stderr)
        return _IO
    print(as_json(told) if arguments.output == "json" else as_text(told))
    return _FINDING if told.verdict == REFUSED else 0


def _inspect(arguments: argparse.Namespace) -> Report:
    keys = None if arguments.jwks is None else _keys(arguments.jwks)
    rules = None if arguments.policies is None else _rules(arguments.policies)
    peeked = peek(_text(arguments.token))
    now = time.time() if arguments.time is None else arguments.time
    return report(peeked, _checks(peeked, keys, rules, now, Posture(arguments.posture)), now)


def _checks(
    peeked: Peeked,
    keys: KeySet | None,
    rules: Mapping[JwtRule, KeySet | None] | None,
    now: float,
    posture: Posture,
) -> tuple[Checked, ...]:
    if rules is not None:
        return tuple(
            check(peeked, rule, inline if isinstance(rule.keys, InlineKeys) else keys, now, posture)
            for rule, inline in rules.items()
        )
    if keys is not None:
        return (check(peeked, _BY_KEYS_ALONE, keys, now, posture),)
    return ()


def _rules(paths: list[str]) -> Mapping[JwtRule, KeySet | None]:
    """Every rule of every RequestAuthentication, and its keys where the policy has them inline."""
    loaded, inline = parse_files(read_files([Path(path) for path in paths]), Mesh().namespace)
    for warning in loaded.warnings:
        print(warning.render(), file=sys.stderr)
    known: Mapping[KeySource, KeySet] = inline
    return {
        rule: known.get(rule.keys) for resource in loaded.resources.request_authentications for rule in resource.rules
    }


def _keys(source: str) -> KeySet:
    """The key set of a file or URL. Raise `FetchError` or `KeySetError`."""
    if "://" in source:
        return KeySet.parse(asyncio.run(get(source, Access(), _TIMEOUT)))
    return KeySet.parse(read_text(source))


def _text(given: str) -> str:
    """The token as it was given, or of standard input what is there."""
    if given == "-":
        text = sys.stdin.buffer.read(_MAX_INPUT).decode("utf-8", "surrogateescape")
    else:
        text = given
        print(
            "countersign token inspect: a token in a command is kept by the shell's history and seen by every `ps`; "
            "give it on standard input",
            file=sys.stderr,
        )
    text = text.strip()
    return text[len(_BEARER) :].lstrip() if text[: len(_BEARER)].lower() == _BEARER else text
