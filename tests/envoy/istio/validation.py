"""Our validation held against Istio's: the same documents are refused, but for what `docs/differences.md` says."""

import json
import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from countersign.policy.parse import parse
from countersign.policy.problems import PolicyError, Severity
from countersign.tokens.keys import KeySet, KeySetError

from tests.envoy.istio.mutate import mutated
from tests.envoy.istio.oracle import Oracle, Verdict
from tests.envoy.istio.prepare import known
from tests.envoy.judge import generate_peers
from tests.envoy.judge.generate import policy_set
from tests.envoy.judge.matchers import Json

_AT_ONCE: Final = 200
_LONGEST: Final = 60_000  # characters of a document, or a few of them take all the time

# What we refuse beyond Istio, by our message.
STRICTER: Final = {
    "a header name that none can have": r"is no header name in",
    "`from: []` and `to: []`": r"`(?:from|to)` is empty",
    "no keys, and an issuer that is no URL": r"is no URL to ask",
    "`jwks: ''`, and JSON with two readings": r"no JSON with one reading",
    "a port of `jwksUri` over 65535, white space in it": r"is no http or https URL with a host",
    "a key that only begins like one": r"unknown key `request\.(?:headers|auth\.claims)",
    "`experimental.envoy.filters` without a filter": r"wants a filter and a key in brackets|unknown key `experimental",
    "a zone in an address, a port of more than five digits": r"not an IP address or CIDR block|not a port",
    "a slash in `source.trustDomain`": r"a trust domain has no slash",
    "a name of a claim that is empty": r"has an empty name",
    "a template that Envoy's process ends for": r"a template begins with|has no empty segment",
    "a duration of several units": r"is no positive duration",
}
# What we take beyond Istio, by its message.
LOOSER: Final = {
    "another kind of resource is passed over": r"no validator found|unrecognized type",
    "null in the place of a value is as good as nothing": r'must be of type \w+: "null"',
    "an issuer that is an empty text is none": r"issuer in body should be at least 1 chars long",
    "a key in `jwks` that cannot be read is put aside": r"jwks parse error: failed to unmarshal JWK set: .*decode key",
}


def compare(oracle: Oracle, seed: str, documents: int) -> Iterator[tuple[str, str]]:
    """For each document what came out, and it if that is neither agreement nor a known difference."""
    rng = Random(seed)  # noqa: S311 (repeatable, not secret)
    drawn = _documents(rng)
    texts = [next(drawn) for _ in range(documents)]
    for start in range(0, documents, _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        for text, verdict in zip(some, oracle.verdicts(some), strict=True):
            yield outcome(text, verdict)


def _documents(rng: Random) -> Iterator[str]:
    while True:
        drawn = policy_set(rng, "set", generate_peers.for_mesh(rng))
        for document in [*drawn.shared, *known(drawn).documents]:
            text = json.dumps(mutated(rng, _as_json(document)))
            if len(text) < _LONGEST:
                yield text


def _as_json(document: Json) -> Json:
    """Names are texts."""
    found: Json = json.loads(json.dumps(document))
    return found


def outcome(text: str, verdict: Verdict) -> tuple[str, str]:
    """The name of what came out for one document, and the document if nothing explains it."""
    ours = errors(text)
    if verdict.accepted and not ours:
        return "both accept", ""
    if not verdict.accepted and ours:
        return "both refuse", ""
    if ours:
        return _explained("only we refuse", STRICTER, ours, text)
    return _explained("only Istio refuses", LOOSER, _each(verdict), text)


def _explained(who: str, known_as: dict[str, str], said: Sequence[str], text: str) -> tuple[str, str]:
    """The difference that each of the messages is an instance of."""
    names = {name for each in said for name, pattern in known_as.items() if re.search(pattern, each)}
    unexplained = [each for each in said if not any(re.search(pattern, each) for pattern in known_as.values())]
    if unexplained:
        return f"{who}, and nobody knows why", f"{text}\n  {'; '.join(unexplained)}"
    return f"{who}: {' and '.join(sorted(names))}", ""


def _each(verdict: Verdict) -> list[str]:
    """Why Istio refuses. Of a value that must be another and is null the schema complains several times."""
    texts = [text for text in (verdict.schema, verdict.webhook) if text]
    if re.search(LOOSER["null in the place of a value is as good as nothing"], verdict.schema):
        texts = [text for text in texts if "Unsupported value: null" not in text] or [verdict.schema]
    return texts


def errors(text: str) -> list[str]:
    """What our parser says is wrong."""
    try:
        parse({"document": text}, None, _wrong_with_keys)
    except PolicyError as error:
        return [each.message for each in error.problems if each.severity is Severity.ERROR]
    return []


def _wrong_with_keys(text: str) -> str:
    try:
        KeySet.parse(text)
    except KeySetError as error:
        return str(error)
    return ""
