"""Random requests: half of each one's parts are what the policies of its set ask for, or just miss it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.envoy.judge import vocabulary as words
from tests.envoy.judge.client import Request
from tests.envoy.judge.hints import Hints
from tests.envoy.judge.identities import IDENTITIES, ODD, PLAINTEXT
from tests.envoy.judge.jwt_authn import rules_of
from tests.envoy.judge.matchers import Json
from tests.envoy.judge.policy_set import PolicySet
from tests.envoy.judge.tokens import Token

Headers = list[tuple[str, str]]

_CALLERS: Final = (PLAINTEXT, "sleep", "sleep", *IDENTITIES)
_FORGED_XFCC: Final = "By=spiffe://cluster.local/ns/x/sa/y;Hash=00;URI=spiffe://cluster.local/ns/edge/sa/web"
_ODD_PATHS: Final[Sequence[Callable[[str], str]]] = (
    lambda path: path.replace("/", "//", 1),
    lambda path: f"/.{path}",
    lambda path: f"/x/..{path}",
    lambda path: path.replace("a", "%61", 1),
    lambda path: f"/%2e%2e{path}",
    lambda path: f"{path}%2fx",
    lambda path: f"{path};v=1",
    lambda path: f"{path}\\x",
    lambda path: f"{path}/",
    lambda path: f"{path}/..",
    lambda path: f"{path}%20x",
    lambda path: f"{path}%2",
    lambda path: f"{path}%2561",
    lambda path: path.upper(),
    lambda path: f"{path}?q=/admin",
    lambda path: f"{path}?a=b&a=c",
    lambda path: f"{path}?",
    lambda path: f"{path}#fragment",
    lambda path: f"{path}*",
    lambda path: f"{path}[<|>]",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, and the tokens that it carries."""

    request: Request
    tokens: tuple[Token, ...]


def case(rng: Random, policies: PolicySet, minted: Sequence[Token]) -> Case:
    """One random request for the workload of a policy set."""
    hints = Hints(rng, policies)
    headers = _headers(rng, hints)
    carried, query = _carry(rng, policies, minted, headers)
    path = _path(rng, hints)
    if query:
        path += f"{'&' if '?' in path else '?'}{query}"
    rng.shuffle(headers)
    method = hints.pick(("methods", "request.headers[:method]"), words.METHODS)
    host = hints.pick(("hosts", "request.headers[:authority]", "request.headers[host]"), words.HOSTS)
    odd = rng.random() < 0.12
    request = Request(
        caller=rng.choice(list(ODD) if odd else _CALLERS),
        source=rng.choice(words.SOURCES),
        listener="verbatim" if odd else rng.choice(("normalising", "verbatim")),
        sni=rng.choice(words.SNIS),
        method=method if method.isupper() and method.isalpha() and method != "CONNECT" else "GET",
        path=path,
        host=host if not set(host) & set("*{/ ") else "web.example",
        headers=tuple(headers),
    )
    return Case(request=request, tokens=carried)


def _path(rng: Random, hints: Hints) -> str:
    path = "/" + "/".join(rng.choice(words.SEGMENTS) for _ in range(rng.choice((0, 1, 1, 2, 2, 3))))
    path = hints.pick(("paths", "request.headers[:path]"), (path,))
    if not path.startswith("/"):
        path = f"/{path}"
    return rng.choice(_ODD_PATHS)(path) if rng.random() < 0.2 else path


def _headers(rng: Random, hints: Hints) -> Headers:
    found: Headers = []
    for name in [*hints.header_names(), *rng.sample(words.HEADERS, 2)]:
        if name in ("authorization", "cookie") or rng.random() < 0.3:
            continue
        for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 2, 3))):
            value = hints.pick((f"request.headers[{name}]",), words.HEADER_WORDS)
            found.append((name if rng.random() < 0.8 else name.upper(), value))
    if rng.random() < 0.04:
        found += [("origin", "https://o.example"), ("access-control-request-method", rng.choice(("GET", "")))]
    if rng.random() < 0.04:
        found.append(("content-type", "application/grpc"))
    if rng.random() < (0.6 if hints.values("remoteIpBlocks") or hints.values("remote.ip") else 0.05):
        found.append(("x-forwarded-for", rng.choice(words.FORWARDED)))
    if rng.random() < 0.04:
        found.append(("x-forwarded-client-cert", _FORGED_XFCC))
    if rng.random() < 0.02:
        found.append(("x-role", "caf\xe9"))
    return found


def _carry(
    rng: Random, policies: PolicySet, minted: Sequence[Token], headers: Headers
) -> tuple[tuple[Token, ...], str]:
    """Put tokens where the rules look for them, or elsewhere. Give them, and what goes into the query."""
    rules = rules_of(policies.applying("RequestAuthentication"))
    issuers = {rule["issuer"] for rule in rules}
    carried: list[Token] = []
    query: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3) if rules else (0, 0, 0, 1))):
        good = rng.random() < 0.7
        fitting = [
            token for token in minted if (token.kind == "good") == good and (not issuers or token.issuer in issuers)
        ]
        token = rng.choice(fitting if fitting and rng.random() < 0.9 else minted)
        carried.append(token)
        _place(rng, rng.choice(rules) if rules else {}, token.text, headers, query)
    return tuple(carried), "&".join(query)


def _place(rng: Random, rule: Json, token: str, headers: Headers, query: list[str]) -> None:
    name = rng.choice(("token", "access_token", "jwt"))
    places: list[Callable[[], None]] = [
        *(lambda: headers.append(("authorization", f"Bearer {token}")),) * 5,
        lambda: headers.append(("Authorization", rng.choice(("bearer ", "Basic ", "", "Bearer  ", "Bearer,")) + token)),
        lambda: query.append(f"{name}={token}"),
        lambda: headers.append(("x-jwt", token)),
        lambda: headers.append(("cookie", f"a=b; {rng.choice(('session', 'jwt'))}={token}")),
    ]
    for each in rule.get("fromHeaders", ()):
        line = (each["name"], each.get("prefix", "") + token)
        places += [lambda line=line: headers.append(line)] * 6  # type: ignore[misc]  # the default binds the loop's value
    for each in rule.get("fromParams", ()):
        places += [lambda each=each: query.append(f"{each}={token}")] * 4  # type: ignore[misc]  # likewise
    for each in rule.get("fromCookies", ()):
        places += [lambda each=each: headers.append(("cookie", f"{each}={token}; c=d"))] * 4  # type: ignore[misc]  # likewise
    rng.choice(places)()
