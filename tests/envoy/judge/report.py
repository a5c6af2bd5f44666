"""A disagreement on paper: what to put into a file and send, to see it again."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Final

import yaml

from tests.envoy.judge.arena import Verdict
from tests.envoy.judge.client import Request
from tests.envoy.judge.compare import Disagreement

_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]{8,})\.([A-Za-z0-9_-]{4,})\.([A-Za-z0-9_-]*)")
_KEY: Final = re.compile(r'("[nxy]": ")([^"]{6})[^"]+')


def render(found: Disagreement) -> str:
    """Policies, request, both answers; tokens are shown by their content."""
    documents = yaml.safe_dump_all(found.policies.documents, sort_keys=False, width=200)
    lines = [
        f"--- posture {found.posture}",
        _KEY.sub(r"\1\2...", documents).rstrip(),
        "# request:",
        *_request(found.case.request),
        *(f"#   carries: {token.kind}" for token in found.case.tokens if token.text in _head(found.case.request)),
        *_answer("envoy's own filters", found.native, found.countersign),
        *_answer("countersign", found.countersign, found.native),
    ]
    return "\n".join(lines)


def _request(request: Request) -> Iterator[str]:
    who = request.caller or "nobody (plaintext)"
    yield f"#   {who} from {request.source} to listener {request.listener}, sni {request.sni or '(none)'}"
    for line in _head(request).rstrip().split("\r\n"):
        yield f"#   | {_short(line)}"


def _head(request: Request) -> str:
    return request.head().decode("latin-1")


def _answer(who: str, verdict: Verdict, other: Verdict) -> Iterator[str]:
    yield f"# {who}: {verdict.status} {verdict.body}".rstrip()
    if verdict.received is not None and other.received is not None:
        for line in dict.fromkeys(verdict.received):
            count, elsewhere = verdict.received.count(line), other.received.count(line)
            if count != elsewhere:
                yield f"#   the workload got {count} x (and {elsewhere} x by the other): {_short(line)}"
    for (name, value), (_, others) in zip(verdict.headers, other.headers, strict=False):
        if value != others:
            yield f"#   {name}: {_short(str(value))}"


def _short(text: str) -> str:
    return _TOKEN.sub(lambda match: f"<token {_claims(match[0])}>", text)


def _claims(token: str) -> str:
    parts = token.split(".")
    try:
        shown = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in parts[:2]]
    except ValueError:
        return token[:40]
    return json.dumps(shown)
