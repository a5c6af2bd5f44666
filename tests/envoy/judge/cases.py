"""Random requests: half of each one's parts are what the policies of its set ask for, or just miss it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.envoy.judge import vocabulary as words
from tests.envoy.judge.carry import Headers, carry
from tests.envoy.judge.carry import method as method_for
from tests.envoy.judge.client import Request
from tests.envoy.judge.hints import Hints
from tests.envoy.judge.identities import IDENTITIES, ODD, PLAINTEXT
from tests.envoy.judge.policy_set import PolicySet
from tests.envoy.judge.tokens import Token

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
    carried, query = carry(rng, policies, minted, headers)
    path = _path(rng, hints)
    if query:
        path += f"{'&' if '?' in path else '?'}{query}"
    rng.shuffle(headers)
    method = method_for(rng, headers, hints.pick(("methods", "request.headers[:method]"), words.METHODS))
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
