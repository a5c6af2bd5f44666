"""Random policies and requests from a small world, so that they meet: Hypothesis strategies."""

from collections.abc import Callable
from typing import Any, Final

from countersign.core.facts import Endpoint, Headers, HttpRequest, RequestFacts
from countersign.core.identity import VerifiedToken
from countersign.core.jwt_rule import JwtRule
from countersign.policy.resources import Action, AuthorizationPolicy, Clause, Meta, Resources, Rule, Term
from countersign.policy.terms.attributes import ATTRIBUTES, SOURCE_FIELDS
from hypothesis import strategies as st

PATHS: Final = ("/", "/a", "/a/b", "/admin", "//admin", "/a/../admin", "/%61dmin", "/admin;x", "/admin?a=/a", "/a%2fb")
HOSTS: Final = ("a.example", "A.example", "a.example:80", "a.example.", "a.example.:80", "b.example", "")
METHODS: Final = ("GET", "POST", "get")
PEERS: Final = ("", "spiffe://td/ns/a/sa/x", "spiffe://td/ns/b/sa/x", "spiffe://old/ns/a/sa/x", "a.example")
ADDRESSES: Final = ("10.0.0.1", "11.0.0.1", "::1", "::ffff:10.0.0.1", "")
LINES: Final = ("u", "v", "u,v", " u", "u ", "", "u\udcff")
SERVER_NAMES: Final = ("", "a.example", "b.example", None)
FORWARDED: Final = ("10.0.0.1", "11.0.0.1", "10.0.0.1, 11.0.0.1", "11.0.0.1, 10.0.0.1", "x, 10.0.0.1", "")
WRITTEN: Final[tuple[Any, ...]] = ("a", "b", "", ["a"], ["b", "a"], [], 5, {"a": "a"})

_WORDS: Final = {
    "source.principal": (
        "td/ns/a/sa/x",
        "old/ns/a/sa/x",
        "cluster.local/ns/a/sa/x",
        "td/*",
        "*/sa/x",
        "*",
        "*d/ns/b/sa/x",
    ),
    "source.namespace": ("a", "b", "*", "a*"),
    "source.serviceAccount": ("a/x", "ns/x", "x", "b/x"),
    "source.trustDomain": ("td", "old", "*", "t*", "*d", "a.example"),
    "source.ip": ("10.0.0.0/8", "10.0.0.1", "::/0", "0.0.0.0/0"),
    "remote.ip": ("10.0.0.0/8", "10.0.0.1", "::/0", "0.0.0.0/0"),
    "connection.sni": ("a.example", "*.example", "a*", "*"),
    "experimental.envoy.filters": ("a", "[a]", "*", "[*]", "[a*]"),
    "destination.ip": ("10.0.0.0/8", "::1"),
    "destination.port": ("80", "8080", "0"),
    "request.auth.principal": ("*", "i/s", "i", "i/*", "*/s", "i*", "*/*"),
    "request.auth.audiences": ("*", "i", "j*"),
    "request.auth.presenter": ("*", "i"),
    "request.auth.claims": ("*", "a"),
    "request.headers": ("u", "v", "u*", "*v", "*", "u,v"),
    "operation.host": ("a.example", "*.example", "a.*", "*", "a.example:80", "a.example:*", "a.example."),
    "operation.method": ("GET", "P*", "*"),
    "operation.path": ("/a", "/a/*", "/admin", "/adm*", "*/b", "*", "/*", "//admin", "/{*}", "/a/{**}", "/{**}/b"),
}
_ARGUMENTS: Final = {
    "request.headers": (("x-a",), ("x-b",), (":path",), (":authority",)),
    "request.auth.claims": (("a",), ("a", "b")),
    "experimental.envoy.filters": (("http.f", "k"), ("http.f", "l"), ("g", "k")),
}
_SOURCES: Final = tuple(SOURCE_FIELDS.values())
_OPERATIONS: Final = ("operation.host", "operation.method", "operation.path", "destination.port")


def _terms(keys: tuple[str, ...]) -> st.SearchStrategy[Term]:
    def term(key: str) -> st.SearchStrategy[Term]:
        return st.builds(
            Term,
            attribute=st.just(key),
            argument=st.sampled_from(_ARGUMENTS.get(key, ((),))),
            field=st.just(key),
            values=st.lists(st.sampled_from(_WORDS[key]), min_size=1, max_size=2).map(tuple),
            negated=st.booleans(),
            source=st.just("f:1"),
        )

    return st.sampled_from(keys).flatmap(term)


def _clauses(keys: tuple[str, ...]) -> st.SearchStrategy[tuple[Clause, ...]]:
    return st.lists(st.lists(_terms(keys), min_size=1, max_size=2).map(tuple), max_size=2).map(tuple)


RULES: Final = st.builds(
    Rule,
    index=st.integers(0, 2),
    sources=_clauses(_SOURCES),
    operations=_clauses(_OPERATIONS),
    conditions=_clauses(tuple(key for key in ATTRIBUTES if not key.startswith("operation."))),
    source=st.just("f:1"),
)


def policies(
    actions: tuple[Action, ...] = tuple(Action), *, tried: tuple[bool, ...] = (False, False, True)
) -> st.SearchStrategy[AuthorizationPolicy]:
    """Policies that apply to every workload of `ns`; some of those that may be are only tried."""

    def policy(action: Action) -> st.SearchStrategy[AuthorizationPolicy]:
        return st.builds(
            AuthorizationPolicy,
            meta=st.builds(Meta, name=st.sampled_from("abcd"), namespace=st.just("ns"), source=st.just("f:1")),
            action=st.just(action),
            dry_run=st.sampled_from(tried if action in {Action.ALLOW, Action.DENY} else (False,)),
            rules=st.lists(RULES, max_size=3).map(tuple),
        )

    return st.sampled_from(actions).flatmap(policy)


POLICIES: Final = st.lists(policies(), max_size=4).map(tuple)


def resources(policies: tuple[AuthorizationPolicy, ...], *rules: JwtRule) -> Resources:
    """Authorization policies as everything that was loaded."""
    assert not rules
    return Resources(authorization_policies=policies)


def _build(values: dict[str, Any]) -> RequestFacts:
    headers = [
        (":path", values["path"]),
        (":method", values["method"]),
        (":authority", values["host"]),
        *(("x-a", line) for line in values["x-a"]),
        *(("x-b", line) for line in values["x-b"]),
        *(("x-forwarded-client-cert", line) for line in values["xfcc"]),
        *(("x-forwarded-for", line) for line in values["xff"]),
    ]
    return RequestFacts(
        http=HttpRequest(
            method=values["method"],
            path=values["path"],
            host=values["host"],
            headers=Headers.of(headers, joined=values["joined"]),
        ),
        source=Endpoint(address=values["source"], port=1, principal=values["principal"]),
        destination=Endpoint(address=values["destination"], port=values["port"]),
        sni=values["sni"],
        metadata={"envoy.filters.http.f": {"k": values["written"]}},
        context_extensions={"workload.namespace": "ns"},
    )


VALUES: Final = st.fixed_dictionaries(
    {
        "path": st.sampled_from(PATHS),
        "host": st.sampled_from(HOSTS),
        "method": st.sampled_from(METHODS),
        "x-a": st.lists(st.sampled_from(LINES), max_size=3),
        "x-b": st.lists(st.sampled_from(LINES), max_size=1),
        "xfcc": st.just(()),
        "xff": st.lists(st.sampled_from(FORWARDED), max_size=2),
        "sni": st.sampled_from(SERVER_NAMES),
        "written": st.sampled_from(WRITTEN),
        "joined": st.booleans(),
        "source": st.sampled_from(ADDRESSES),
        "destination": st.sampled_from(ADDRESSES),
        "port": st.sampled_from((80, 8080, 0)),
        "principal": st.sampled_from(PEERS),
    }
)
build: Final[Callable[[dict[str, Any]], RequestFacts]] = _build
REQUESTS: Final = VALUES.map(_build)


def _token(issuer: str, subject: str | None, claims: dict[str, Any]) -> VerifiedToken:
    return VerifiedToken(claims=claims, issuer=issuer, subject=subject, expires_at=None)


USERS: Final = st.none() | st.builds(
    _token,
    issuer=st.sampled_from(("i", "")),
    subject=st.sampled_from(("s", "*", "", None)),
    claims=st.fixed_dictionaries(
        {},
        optional={
            "a": st.sampled_from(("a", "b", ["b", "a"], {"b": "a"}, 5, None)),
            "aud": st.sampled_from(("i", ["i", "j1"])),
            "azp": st.sampled_from(("i", "")),
        },
    ),
)

# What each attribute is when it is garbage: no value of it, where every request has one, or none that can be read.
# An empty header or principal is not garbage but absence, which Istio, and so we, take for an answer.
GARBAGE: Final[dict[str, tuple[Any, ...]]] = {
    "path": ("", "admin", "/a\x00", "/\xe9", "/%zz", "/%00", "/ ", "?x", "/a\udcff"),
    "host": ("", "a@b", "a b", "a,b", "\u212a", "a:b", "a\udcff"),
    "method": ("",),
    "x-a": (["\udcff"], ["u\udcff"], ["v", "\udcff"]),
    "x-b": (["\udcff"], ["u\udcff"]),
    "source": ("", "/run/x.sock", "10.0.0", "x"),
    "destination": ("", "/run/x.sock", "10.0.0", "x"),
    "port": (0,),
    "principal": (
        "spiffe://",
        "spiffe:x",
        "SPIFFE://td/ns/a/sa/x",
        "https://x/y",
        "spiffe://td/ns/a/sa/x,y",
        "spiffe://td",
    ),
    "xff": (["x, 10.0.0.1"], [", 10.0.0.1"], ["10.0.0.1:80, 10.0.0.1"], ["10.0.0.1", "10.0.0, 10.0.0.1"]),
    "xfcc": (["x"], ["Hash=1,"], ["["], ['URI="'], ["\udcff"]),
}
