"""How attributes are looked up: what is passed over could not have matched, and little is asked for nothing."""

from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.core.posture import Posture
from countersign.policy.index import RuleIndex
from countersign.policy.lookups import LOOKUPS
from countersign.policy.match import Outcome
from countersign.policy.resources import Action, Rule, Term
from countersign.policy.terms.attributes import ATTRIBUTES
from countersign.policy.terms.evidence import Context, Evidence

from tests.support.requests import evidence, facts, token

TRUST_DOMAINS: Final = ("td", "old")
ARGUMENTS: Final = {"request.auth.claims": ("a", "b"), "request.headers": ("x-a",)}

# Values that are looked up exactly: a rule is asked if and only if it matches, or cannot be read.
SHARP: Final = {
    "source.principal": ("td/ns/a/sa/x", "td/ns/a/*", "*/sa/x", "old/ns/a/sa/x", "other/ns/a/sa/x"),
    "source.namespace": ("a", "n7", "x", "td", "ns"),
    "source.ip": ("10.0.0.0/8", "10.0.0.1", "::1", "0.0.0.0/0", "::/0", "10.0.0.0/31", "fe80::/10", "128.0.0.0/1"),
    "remote.ip": ("10.0.0.0/8", "10.0.0.1", "0.0.0.0/0"),
    "destination.ip": ("10.0.0.0/8", "10.0.0.1", "::/0"),
    "destination.port": ("80", "8080", "0080"),
    "connection.sni": ("a.example", "*.example", "a*"),
    "operation.method": ("GET", "P*", "*T"),
    "operation.host": ("a.example", "A.Example", "*.example", "*a", "a.example:80"),
    "operation.path": ("/a", "/a/*", "*/b", "/admin"),
    "request.auth.principal": ("i/s", "i/s/t", "i/", "/s", "td/ns/s"),
    "request.auth.audiences": ("i", "i*", "*j"),
    "request.auth.presenter": ("i", "i*"),
    "request.auth.claims": ("v", "v*", "*w"),
    "request.headers": ("v*", "*w"),
}
# Values for which more rules may be asked than match.
BLUNT: Final = {
    "source.principal": ("*",),
    "source.namespace": ("*", "a*", "*7", "a/b", "n7/x", "a/sa"),
    "connection.sni": ("*",),
    "operation.method": ("*",),
    "operation.host": ("*",),
    "operation.path": ("*", "/{*}", "/a/{*}/c/{**}", "/{**}/b"),
    "request.auth.principal": (
        *("*", "i", "i*", "*i", "*s", "i/*", "i/s*", "*/s", "*i/s", "*d/ns/s"),
        *("*/*", "*/s*", "i*/s", "*i/s*", "i/*s", "i*/*"),  # of two asterisks one is a character
    ),
    "request.auth.audiences": ("*",),
    "request.auth.claims": ("*",),
    "request.headers": ("v", "*"),
}

PEERS: Final = (
    None,
    "spiffe://td/ns/a/sa/x",
    "spiffe://old/ns/a/sa/x",
    "spiffe://td/ns/a",
    "spiffe://td/a/ns/n7/x",
    "spiffe://ns/n7/x",
    "spiffe://td/ns/a/b/ns/x/y",
)
TOKENS: Final = (
    None,
    token("i", "s", a={"b": "v"}, aud="i", azp="i"),
    token("i", "s/t", a={"b": ["x", "vw", 5]}, aud=["i", "j"]),
    token("i/s", "t", a="v", aud=5),
    token("i", None, a=["v"], aud=[]),
    token("i", "", a={"b": 5}),
    token("", "s", a={"b": {"v": "v"}}),
    token("xi", "s"),
    token("i*", "s"),
    token("*", "s"),
    token("i", "*"),
    token("i", "*s"),
    token("i", "s*"),
    token("*i", "s*"),
    token("td/ns", "s"),
)
REQUESTS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"path": "/a", "host": "a.example", "method": "GET", "source": "10.0.0.1", "port": 80, "sni": "a.example"},
    {"path": "/a/b?c", "host": "A.example:80", "method": "PUT", "source": "::ffff:10.0.0.1", "port": 8080},
    {"path": "/a/x/c/", "host": "a", "method": "POST", "source": "fe80::1%eth0", "destination": "10.0.0.1"},
    {"path": "//admin", "host": "a.example.", "source": "10.0.0.1%eth0", "destination": "::1"},
    {"path": "/a/../admin", "host": "", "source": "", "port": 0, "destination": ""},
    {"path": "", "source": "192.0.2.1", "sni": None},
)
LINES: Final = ((), ("v",), ("vw",), ("v", "w"), ("v,w",), ("",), ("v\udcff",))


def _term(attribute: str, value: str, *, negated: bool = False) -> Term:
    argument = ARGUMENTS.get(attribute, ())
    return Term(attribute=attribute, argument=argument, field="f", values=(value,), negated=negated, source="f:1")


def _is_asked(term: Term, seen: Evidence) -> bool:
    rule = Rule(index=0, conditions=((term,),), source="f:1")
    return list(RuleIndex([rule], TRUST_DOMAINS, few=0).candidates(seen)) == [0]


def _can_match(term: Term, seen: Evidence) -> bool:
    """Whether an ALLOW or a DENY would do anything but pass over the rule."""
    contexts = (
        Context(action=action, namespace="a", posture=seen.posture, trust_domains=TRUST_DOMAINS)
        for action in (Action.ALLOW, Action.DENY)
    )
    attribute = ATTRIBUTES[term.attribute]
    return any(attribute.prepare(term, context)(seen) is not Outcome.NO_MATCH for context in contexts)


def _everything(posture: Posture) -> list[Evidence]:
    requests = [facts(**each) for each in REQUESTS] + [facts(*(("x-a", line) for line in lines)) for lines in LINES]
    by_request = [evidence(each, remote_ip=each.source.address, posture=posture) for each in requests]
    return [
        *(replace(each, trust_domains=TRUST_DOMAINS) for each in by_request),
        *(evidence(token=user, posture=posture, trust_domains=TRUST_DOMAINS) for user in TOKENS),
        *(evidence(peer=peer, posture=posture, trust_domains=TRUST_DOMAINS) for peer in PEERS),
    ]


EVERYTHING: Final = {posture: _everything(posture) for posture in Posture}
CASES: Final = [
    (attribute, value, sharp)
    for values, sharp in ((SHARP, True), (BLUNT, False))
    for attribute in values
    for value in values[attribute]
]


def test_every_attribute_that_is_looked_up_is_tried() -> None:
    assert SHARP.keys() == LOOKUPS.keys()


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize(("attribute", "value", "sharp"), CASES)
def test_what_is_passed_over_could_not_have_matched(
    attribute: str, value: str, posture: Posture, *, sharp: bool
) -> None:
    term = _term(attribute, value)

    for seen in EVERYTHING[posture]:
        asked, can_match = _is_asked(term, seen), _can_match(term, seen)
        assert asked or not can_match, seen
        if sharp and posture is Posture.STRICT:
            assert asked == can_match, seen


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize(
    ("name", "value"),
    [(":path", "/admin"), (":path", "/a"), (":path", "/a/b?c"), (":authority", "a.example"), (":method", "PUT")],
)
def test_a_pseudo_header_has_every_reading_of_what_it_says(name: str, value: str, posture: Posture) -> None:
    term = replace(_term("request.headers", value), argument=(name,))

    assert all(_is_asked(term, seen) for seen in EVERYTHING[posture] if _can_match(term, seen))


@pytest.mark.parametrize("attribute", sorted(LOOKUPS))
def test_a_negated_field_is_asked_always(attribute: str) -> None:
    term = _term(attribute, SHARP[attribute][0], negated=True)

    assert all(_is_asked(term, seen) for seen in EVERYTHING[Posture.STRICT])


@pytest.mark.parametrize(
    ("attribute", "value", "seen", "asked"),
    [
        ("request.auth.principal", "i/*", evidence(token=token("i", "t")), True),
        ("request.auth.principal", "i/*", evidence(token=token("j", "s")), False),
        ("request.auth.principal", "i/s*", evidence(token=token("j", "s")), False),
        ("request.auth.principal", "i/j/s*", evidence(token=token("i/j", "s")), True),
        ("request.auth.principal", "i/j/s*", evidence(token=token("i", "j/s")), False),
        ("request.auth.principal", "*/s", evidence(token=token("i", "s")), True),
        ("request.auth.principal", "*/s", evidence(token=token("i", "t")), False),
        ("request.auth.principal", "*i/s", evidence(token=token("i", "t")), False),
        ("request.auth.principal", "i", evidence(token=token("j", "s")), True),
        ("request.auth.principal", "i*/s*", evidence(token=token("i", "s")), False),
        ("request.auth.principal", "*/s*", evidence(token=token("i", "sx")), False),
        ("operation.path", "/a/{*}/c/{**}", evidence(facts(path="/a/x")), True),
        ("operation.path", "/a/{*}/c/{**}", evidence(facts(path="/b/x")), False),
        ("source.namespace", "a*", evidence(peer=None), True),
        ("source.namespace", "a/b", evidence(peer="spiffe://td/ns/a/sa/b"), True),
    ],
)
def test_little_is_asked_for_nothing(attribute: str, value: str, seen: Evidence, *, asked: bool) -> None:
    assert _is_asked(_term(attribute, value), seen) is asked


@pytest.mark.parametrize(
    ("attribute", "asked"),
    [("operation.method", False), ("operation.host", True), ("operation.path", True), ("request.headers", False)],
)
def test_a_connection_has_nothing_of_a_request(attribute: str, *, asked: bool) -> None:
    connection = replace(evidence(), facts=replace(facts(), http=None))

    assert _is_asked(_term(attribute, SHARP[attribute][0]), connection) is asked


def test_a_header_that_only_looks_like_another_is_none() -> None:
    seen = evidence(facts(("x-a", "other"), ("x-b", "v")))

    assert not _is_asked(_term("request.headers", "v"), seen)
