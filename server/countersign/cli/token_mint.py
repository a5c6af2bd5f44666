"""`countersign token mint`: a token for development, signed with a key that this command has made."""

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

from countersign.cli.times import iso
from countersign.explanation.conceal import printable
from countersign.mesh.development_keys import SIGNING_KEY, DevelopmentKey, DevelopmentKeyError, development_key
from countersign.mesh.issuer import ALGORITHMS
from countersign.tokens.jose import TokenError, parse
from countersign.tokens.strict_json import JsonError, loads

SUMMARY: Final = "sign a token for development, with a key that is made for nothing else"

_FINDING, _USAGE = 1, 2
_KEYS: Final = "dev-keys"
_ISSUER: Final = "https://issuer.development.example"
_SPAN: Final = re.compile(r"(-?[0-9]{1,7})([smhd]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose token, about whom, for how long."""
    parser.epilog = (
        "The token alone goes to standard output. The first run makes DIR with a key pair: DIR/jwks.json is what a "
        "RequestAuthentication may trust, in development. Exit code: 0 signed, 1 no key of this command's, 2 wrong "
        "usage, 3 I/O."
    )
    add = parser.add_argument
    add("--keys", metavar="DIR", type=Path, default=Path(_KEYS), help="where the keys are (default: %(default)s)")
    add("--alg", choices=list(ALGORITHMS), default="ES256", help="default: %(default)s")
    add("--iss", metavar="TEXT", default=_ISSUER, help="issuer (default: %(default)s)")
    add("--sub", metavar="TEXT", default="developer", help="subject (default: %(default)s)")
    add("--aud", metavar="TEXT", action="append", default=[], help="audience; repeatable")
    add("--expires-in", metavar="SPAN", type=_span, default=3600, help="seconds, or 10m, 2h, 1d (default: 1h)")
    add(
        "--claim",
        metavar="NAME=VALUE",
        type=_claim,
        action="append",
        default=[],
        help="a claim more; VALUE is JSON, else a text; repeatable",
    )
    add("-o", "--output", choices=("text", "json"), default="text", help="the token, or all about it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Sign; give the exit code. Raise OSError where the keys cannot be written."""
    now = int(time.time())
    audience: list[str] = arguments.aud
    claims: dict[str, Any] = {"iss": arguments.iss, "sub": arguments.sub}
    if audience:
        claims["aud"] = audience if len(audience) > 1 else audience[0]
    claims |= {"iat": now, "exp": now + arguments.expires_in, **dict(arguments.claim)}
    try:
        key = development_key(arguments.keys, arguments.alg)
        token = key.sign(claims)
        parse(token)
    except DevelopmentKeyError as error:
        print(f"countersign token mint: {printable(str(error))}", file=sys.stderr)
        return _FINDING
    except (TokenError, UnicodeEncodeError) as error:
        why = error.text if isinstance(error, TokenError) else "a text that is not Unicode"
        print(f"countersign token mint: nobody would take such a token: {why}", file=sys.stderr)
        return _USAGE
    _warn(key, arguments.keys)
    if arguments.output == "json":
        about = {"token": token, "header": key.header, "claims": claims, "jwks": str(key.key_set)}
        print(json.dumps(about, indent=2))
    else:
        print(token)
        print(f"sub {printable(arguments.sub)}, expires {iso(claims['exp'])}", file=sys.stderr)
    return 0


def _warn(key: DevelopmentKey, directory: Path) -> None:
    if key.made:
        print(f"made a key pair in {printable(str(directory))}; trust {printable(str(key.key_set))}", file=sys.stderr)
    print(
        f"FOR DEVELOPMENT ONLY: whoever reads {printable(str(directory / SIGNING_KEY))} is anybody, wherever "
        f"{printable(str(key.key_set))} is trusted",
        file=sys.stderr,
    )


def _span(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"`{text}` is no span of time, such as 90, 10m, 2h or 1d")
    return int(found[1]) * _UNITS[found[2]]


def _claim(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"`{text}` wants NAME=VALUE, such as groups='[\"users\"]'")
    try:
        return name, loads(value)
    except JsonError:
        return name, value
