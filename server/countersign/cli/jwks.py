"""`countersign jwks`: the keys of an issuer as `serve` would take them: each usable, or why not."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from countersign.cli.config.file import ConfigError, read_config
from countersign.cli.config.key_flags import network
from countersign.cli.problem_formats import count
from countersign.edge.keys.access import Access, IssuerKeys, KeySettings
from countersign.edge.keys.fetch import DISCOVERY, FetchError, discovered, get
from countersign.edge.keys.files import read_text
from countersign.edge.keys.url import HttpUrl, UrlError
from countersign.tokens.inspected_keys import InspectedKey, inspect
from countersign.tokens.keys import KeySetError
from countersign.tokens.strict_json import JsonError, loads

_FINDING, _USAGE, _IO = 1, 2, 3
_MAX_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """A key set as text, and where it was in the end."""

    text: str
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose keys, and the way to them."""
    parser.epilog = (
        "Fetches with serve's own limits. Exit code: 0 every key is usable, 1 one is not, or there is no key, "
        "2 usage, 3 the keys cannot be had."
    )
    add = parser.add_argument
    add("target", metavar="URL|FILE|ISSUER", help="a jwks_uri, a file, or an issuer with OpenID discovery")
    add("--config", metavar="FILE", help="the countersign.yaml whose `issuers` say how to get there")
    add("--ca-file", metavar="FILE", type=Path, help="the authorities to trust instead of the public ones")
    add("--proxy", metavar="URL", type=_url, help="the proxy to go through")
    add("--address", metavar="CIDR", type=network, action="append", default=[], help="only these; repeatable")
    add("--insecure-http", action="store_true", help="http without TLS also beyond this machine")
    add("--timeout", metavar="SECONDS", type=_seconds, default=5.0, help="for each fetch (default: %(default)g)")
    add("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0: every key is usable; 1: a finding; 2: usage; 3: there is nothing to look at."""
    target = arguments.target
    try:
        access, file = _way(arguments)
    except ConfigError as error:
        print(f"countersign jwks: the configuration cannot be used\n{error}", file=sys.stderr)
        return _USAGE
    try:
        if file is None and "://" in target:
            found = asyncio.run(_fetched(target, access, arguments.timeout))
        else:
            path = target if file is None else str(file)
            found = _Text(text=read_text(path), source=path)
    except FetchError as error:
        print(f"countersign jwks: {target}: {error}", file=sys.stderr)
        return _IO
    try:
        keys = inspect(found.text)
    except KeySetError as error:
        print(f"countersign jwks: {found.source}: no key set: {error}", file=sys.stderr)
        return _FINDING
    print(_json(found.source, keys) if arguments.output == "json" else _table(found.source, keys))
    return 0 if keys and not any(key.why_not for key in keys) else _FINDING


def _way(arguments: argparse.Namespace) -> tuple[Access, Path | None]:
    """How to get to the target, and the file that stands in for it, if one does."""
    issuers: Sequence[IssuerKeys] = ()
    config = arguments.config or os.environ.get("COUNTERSIGN_CONFIG")
    if config:
        issuers = read_config(Path(config), None).issuers
    for entry in issuers:
        if arguments.target in (entry.issuer, entry.jwks_uri):
            return KeySettings(issuers=(entry,)).access(entry.name), entry.jwks_file
    given = Access(
        ca_file=arguments.ca_file,
        proxy=arguments.proxy or "",
        addresses=tuple(arguments.address),
        insecure_http=arguments.insecure_http,
    )
    return given, None


async def _fetched(target: str, access: Access, timeout: float) -> _Text:  # noqa: ASYNC109 (of each fetch)
    """What is at the URL, or where the issuer's configuration leads. Raise `FetchError`."""
    found: _Text | None = None
    wrong = ""
    try:
        found = _Text(text=await get(target, access, timeout), source=target)
    except FetchError as error:
        if not str(error).startswith("status "):  # an issuer's own URL often has nothing
            raise
        wrong = str(error)
    members = _object(found.text) if found else {}
    if found and "keys" in members:
        return found
    if found and "jwks_uri" in members:
        return await _follow(found.text, target, access, timeout)
    configuration = target.removesuffix("/") + DISCOVERY
    try:
        return await _follow(await get(configuration, access, timeout), configuration, access, timeout)
    except FetchError as error:
        if found:
            return found
        raise FetchError(f"{wrong}; and as an issuer, {configuration}: {error}") from error


async def _follow(text: str, configuration: str, access: Access, timeout: float) -> _Text:  # noqa: ASYNC109
    uri = discovered(text, HttpUrl.parse(configuration)).text
    return _Text(text=await get(uri, access, timeout), source=uri)


def _object(text: str) -> dict[str, object]:
    try:
        document = loads(text)
    except JsonError:
        return {}
    return document if isinstance(document, dict) else {}


def _json(source: str, keys: Sequence[InspectedKey]) -> str:
    rows = [{**asdict(key), "usable": not key.why_not} for key in keys]
    return json.dumps({"source": source, "keys": rows}, indent=2)


def _table(source: str, keys: Sequence[InspectedKey]) -> str:
    """A row for each key. What an issuer wrote is printed as ASCII: a terminal obeys more than that."""
    head = ("", "kid", "kty", "size", "alg", "use", "thumbprint (RFC 7638)", "verifies")
    rows = [
        (
            "no" if key.why_not else "ok",
            *(_printable(text) or "-" for text in (key.kid, key.kty, key.size, key.alg, key.use, key.thumbprint)),
            f"nothing: {key.why_not}" if key.why_not else " ".join(key.algorithms),
        )
        for key in keys
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    unusable = sum(bool(key.why_not) for key in keys)
    summary = (
        f"{count(len(keys), 'key')} at {source}, {unusable} of them not usable" if keys else f"no keys at {source}"
    )
    return "\n".join([*(line.rstrip() for line in lines if keys), summary])


def _printable(text: str) -> str:
    return ascii(text)[1:-1]


def _url(text: str) -> str:
    try:
        return HttpUrl.parse(text).text
    except UrlError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is {error}") from error


def _seconds(text: str) -> float:
    if not text.replace(".", "", 1).isdecimal() or not text.isascii() or not 0 < float(text) <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of seconds up to {_MAX_SECONDS:g}")
    return float(text)
