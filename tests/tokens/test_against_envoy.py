"""The real Envoy as oracle: the same rules as its own jwt_authn filter, the same requests, the same answers.

Istio's translation is written out here: one provider a rule, and the requirement tree of `authenticate`. Where the
design is stricter than Envoy in both postures, the case stands in `STRICTER` with its reason.
"""

import http.client
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from countersign.core.decision import Mutations, Reason
from countersign.core.jwt_rule import ClaimToHeader, HeaderLocation, InlineKeys, JwtRule, KeySource
from countersign.core.posture import Posture
from countersign.mesh.envoy import find_envoy
from countersign.tokens.authenticate import Authenticated, TokenRefused, authenticate
from countersign.tokens.claim_text import claim_text
from countersign.tokens.keys import KeySet

from tests.tokens.material import AUDIENCE, ISSUER, encode, inline, jwk, request, rule, segment, sign

pytestmark = pytest.mark.envoy

NOW = int(time.time())  # Envoy has no other clock; it may be half an hour before the tests are run
DAY = 86_400  # seconds
Lines = tuple[tuple[str, str], ...]

KEYS = inline(jwk("ES256"), jwk("RS256"), jwk("EdDSA"), jwk("ES384", kid=None))
OTHER = inline(jwk("ES256", 1))
COPIED = ("s", "b", "f", "i", "n", "flt", "lst", "obj", "obj.a", "empty", "null", "scope", "e20", "neg0", "huge",
          "n53", "n19", "n64", "n-53", "nums", "texts", "one", "deep")  # fmt: skip
RULES: Mapping[str, tuple[JwtRule, ...]] = {
    "default": (rule(keys=KEYS, audiences=(AUDIENCE,)),),
    "everywhere": (
        rule(
            keys=KEYS,
            audiences=(AUDIENCE,),
            from_headers=(HeaderLocation("h"), HeaderLocation("g", "Tok ")),
            from_params=("p",),
            from_cookies=("c",),
            output_claim_to_headers=(ClaimToHeader("x-sub", "sub"),),
        ),
    ),
    "two locations": tuple(
        rule(keys=KEYS, audiences=(AUDIENCE,), from_headers=(HeaderLocation(name),)) for name in ("h1", "h2")
    ),
    "two issuers": (rule("https://a.test", keys=OTHER), rule(keys=KEYS, audiences=(AUDIENCE,))),
    "two audiences": (rule(keys=KEYS, audiences=("one",)), rule(keys=KEYS, audiences=("two",))),
    "two outputs": (
        rule("https://a.test", keys=OTHER, output_claim_to_headers=(ClaimToHeader("x-first", "missing"),)),
        rule(keys=KEYS, output_claim_to_headers=(ClaimToHeader("x-second", "missing"),)),
    ),
    "dotted": (
        rule(
            keys=KEYS,
            output_claim_to_headers=(ClaimToHeader("x-dotted", "[a.b][c]"), ClaimToHeader("x-walked", "a.b.c")),
        ),
    ),
    "outputs": (
        rule(
            keys=KEYS,
            output_payload_to_header="x-payload",
            output_claim_to_headers=tuple(ClaimToHeader(f"x-{claim.replace('.', '-')}", claim) for claim in COPIED),
        ),
    ),
}


def token(algorithm: str = "ES256", which: int = 0, header: Any = None, without: str = "", **claims: Any) -> str:
    whole = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": NOW + DAY, **claims}
    return sign(
        {name: value for name, value in whole.items() if name != without},
        algorithm=algorithm,
        which=which,
        header=header,
    )


def es256(**header: Any) -> dict[str, Any]:
    return {"alg": "ES256", "kid": "ES256-0", **header}


GOOD = token()
HEAD, PAYLOAD, TAIL = GOOD.split(".")
CLAIMS = json.dumps({"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + DAY})[:-1]
EXPIRED, FORGED = token(exp=NOW - 100), token(which=3, header=es256())
WRONG_AUDIENCE, FOREIGN = token(aud="x"), token(which=1, iss="https://a.test")

TOKENS = {
    "good": GOOD,
    "expired": EXPIRED,
    "wrong audience": WRONG_AUDIENCE,
    "forged": FORGED,
    "foreign": FOREIGN,
    "garbage": "x",
    "unknown kid": token(header=es256(kid="new")),
    "no exp": token(without="exp"),
    "exp 0": token(exp=0),
    "exp with decimals": token(exp=NOW + DAY + 0.5),
    "exp string": token(exp="1"),
    "exp negative": token(exp=-1),
    "exp 2^63": token(exp=2**63),
    "exp 1e19": token(exp=1e19),
    "exp above 2^64": token(exp=1.9e19),
    "exp null": token(exp=None),
    "exp true": token(exp=True),
    "sub number": token(sub=5),
    "sub with NUL": token(sub="a\0b"),
    "jti number": token(jti=5),
    "aud mixed": token(aud=["svc", 1]),
    "aud object": token(aud={"svc": 1}),
    "aud empty": token(aud=[]),
    "aud null": token(aud=None),
    "aud folded": token(aud="https://svc/"),
    "aud two slashes": token(aud="svc//"),
    "aud two schemes": token(aud="http://https://svc"),
    "no iss": token(without="iss"),
    "iss with slash": token(iss=f"{ISSUER}/"),
    "iss number": token(iss=1),
    "not yet valid": token(nbf=NOW + DAY),
    "iat in the future": token(iat=NOW + DAY),
    "iat string": token(iat="x"),
    "kid empty": token(header=es256(kid="")),
    "kid null": token(header=es256(kid=None)),
    "kid number": token(header=es256(kid=5)),
    "no kid": token(header={"alg": "ES256"}),
    "crit": token(header=es256(crit=["x"])),
    "typ": token(header=es256(typ="logout+jwt")),
    "b64": token(header=es256(b64=True)),
    "RS256": token("RS256"),
    "PS256 under an RS256 key": token("PS256", header={"alg": "PS256", "kid": "RS256-0"}),
    "EdDSA": token("EdDSA"),
    "ES384 with any kid": token("ES384", header={"alg": "ES384", "kid": "any"}),
    "none": f"{segment({'alg': 'none'})}.{PAYLOAD}.",
    "none with signature": f"{segment({'alg': 'none'})}.{PAYLOAD}.{TAIL}",
    "header no base64": f"*.{PAYLOAD}.{TAIL}",
    "header no JSON": f"{encode(b'x')}.{PAYLOAD}.{TAIL}",
    "header without alg": f"{segment({})}.{PAYLOAD}.{TAIL}",
    "alg number": f"{segment({'alg': 5})}.{PAYLOAD}.{TAIL}",
    "alg unknown": f"{segment({'alg': 'x'})}.{PAYLOAD}.{TAIL}",
    "payload no base64": f"{HEAD}.*.{TAIL}",
    "payload no object": f"{HEAD}.{encode(b'[1]')}.{TAIL}",
    "signature no base64": f"{HEAD}.{PAYLOAD}.*",
    "four sections": f"{GOOD}.x",
    "claim twice": sign(f'{CLAIMS},"sub":"a","sub":"b"}}'.encode(), algorithm="ES256"),
    "NaN": sign(f'{CLAIMS},"x":NaN}}'.encode(), algorithm="ES256"),
    "HMAC": f"{segment({'alg': 'HS256'})}.{PAYLOAD}.{TAIL}",
    "padding": f"{GOOD}==",
    "empty section": GOOD.replace(".", "..", 1),
    "dot at the end": f"{GOOD}.",
    "dot at the start": f".{GOOD}",
    "something after it": f"{GOOD} x",
    "longer than 8 KiB": token(x="x" * 6300),
}

# Stricter than Envoy in both postures; Envoy takes all of them, but for HMAC, where it finds no key in the end.
STRICTER = {
    "HMAC": Reason.TOKEN_ALGORITHM,
    "padding": Reason.TOKEN_MALFORMED,
    "empty section": Reason.TOKEN_MALFORMED,
    "dot at the end": Reason.TOKEN_MALFORMED,
    "dot at the start": Reason.TOKEN_MALFORMED,
    "something after it": Reason.TOKEN_MALFORMED,
    "longer than 8 KiB": Reason.TOKEN_MALFORMED,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    rules: str
    headers: Lines = ()
    path: str = "/"
    method: str = "GET"


def at_the_leeway() -> dict[str, str]:
    """Tokens whose times are ten seconds on this side and on that of the minute that Envoy and we allow."""
    now = int(time.time())
    return {
        "inside the leeway": token(exp=now - 50),
        "beyond the leeway": token(exp=now - 70),
        "nbf inside the leeway": token(nbf=now + 50),
        "nbf beyond the leeway": token(nbf=now + 70),
    }


def each_token() -> Iterator[Case]:
    for name, text in (*at_the_leeway().items(), *TOKENS.items()):
        yield Case(name=name, rules="default", headers=(("authorization", f"Bearer {text}"),))
        yield Case(name=name, rules="two issuers", headers=(("authorization", f"Bearer {text}"),))
        yield Case(name=name, rules="two locations", headers=(("h1", text),))


def each_place() -> Iterator[Case]:
    for value in ("bearer ", "BEARER ", "Bearer  ", "Bearer\t", "xBearer ", "Negotiate x, Bearer ", "Basic ", ""):
        yield Case(name=f"{value}token", rules="default", headers=(("authorization", f"{value}{GOOD}"),))
    for value in ("Bearer", "Bearer !!", f"Bearer {GOOD}, Basic x"):
        yield Case(name=value[:20], rules="default", headers=(("authorization", value),))
    for first, second in itertools.product((GOOD, FORGED), repeat=2):
        lines = (("authorization", f"Bearer {first}"), ("authorization", f"Bearer {second}"))
        yield Case(name="two lines", rules="default", headers=lines)
    for query in (
        "access_token=T",
        "access%5Ftoken=T",
        "a=1&access_token=T&access_token=x",
        "access_token=x&access_token=T",
        "access_token",
        "access_token=",
        "access_token=T&z",
        "x?access_token=T",
        "&&access_token=T",
        "x=y;access_token=T",
        "access_tokens=T",
        "Access_token=T",
    ):
        for text in (GOOD, GOOD.replace(".", "%2E")):
            yield Case(name=f"?{query}", rules="default", path=f"/p?{query.replace('T', text)}")
    for cookie in ("c=T", "a=1; c=T", 'c="T"', "c =T", "c=", "c", "c=x; c=T", "c=T; c=x", "C=T", "cc=T"):
        yield Case(name=f"cookie {cookie}", rules="everywhere", headers=(("cookie", cookie.replace("T", GOOD)),))


def pairs() -> Iterator[Case]:
    """Two tokens, of one rule and of two: which is judged, which counts, which failure is reported."""
    some = {
        "none": "",
        "good": GOOD,
        "bob": token(sub="bob"),
        "expired": EXPIRED,
        "wrong audience": WRONG_AUDIENCE,
        "forged": FORGED,
        "foreign": FOREIGN,
        "garbage": "x",
    }

    def lines(*headers: tuple[str, str]) -> Lines:
        return tuple((name, value) for name, value in headers if value not in ("", "Tok ", "c="))

    for (one, first), (two, second) in itertools.product(some.items(), repeat=2):
        name = f"{one}, {two}"
        query = f"/?p={second}" if second else "/"
        yield Case(name=name, rules="everywhere", headers=lines(("h", first)), path=query)
        yield Case(name=name, rules="everywhere", headers=lines(("h", first), ("h", second)))
        yield Case(name=name, rules="everywhere", headers=lines(("g", f"Tok {first}"), ("cookie", f"c={second}")))
        yield Case(name=name, rules="two locations", headers=lines(("h1", first), ("h2", second)))


def others() -> Iterator[Case]:
    for audience, expires in itertools.product(("one", "two", "three"), (NOW + DAY, NOW - 400)):
        text = token(aud=audience, exp=expires)
        yield Case(name=audience, rules="two audiences", headers=(("authorization", f"Bearer {text}"),))
    claims: dict[str, Any] = {
        "s": "alice x",
        "b": True,
        "f": False,
        "i": 42,
        "n": -5,
        "flt": 1.5,
        "lst": ["a", 1, True, None],
        "obj": {"a": "q"},
        "empty": "",
        "null": None,
        "scope": "a  b",
        "e20": 1e20,
        "neg0": -0.0,
        "huge": 1e19,
        "n53": 2**53 + 1,
        "n19": 9999999999999999999,
        "n64": 1.8446744073709551616e19,
        "n-53": -(2**53) - 1,
        "nums": [0, -0.0, 2.0, 0.1, 3.141592653589793, 1e5, 10**15, 2**53 + 1, 123456789012345678, 5e-324, 1e-7, 1e100],
        "texts": ["<b>", "a/b", "'&=", "\xe9", "\u2028", "\x7f\xad", '\n\t"\\\x00', "\U0001f600", "\U000e0001"],
        "one": {"\xe9<": {"a": [None, True, False, {}, [], ""]}},
        "deep": [[[[[[[[{"a": [1.5]}]]]]]]]],
    }
    forged = (("x-s", "forged"), ("x-empty", "forged"), ("x-payload", "forged"))
    preflight = (("origin", "o"), ("access-control-request-method", "GET"))
    yield Case(name="claims", rules="outputs", headers=(("authorization", f"Bearer {token(**claims)}"), *forged))
    yield Case(name="no token", rules="outputs", headers=forged)
    yield Case(name="preflight", rules="outputs", method="OPTIONS", headers=(*preflight, *forged))
    for by_first in (True, False):
        text = token(which=1, iss="https://a.test") if by_first else GOOD
        written = (("authorization", f"Bearer {text}"), ("x-first", "forged"), ("x-second", "forged"))
        yield Case(name="a header of the other rule", rules="two outputs", headers=written)
    for method, lines in (
        ("OPTIONS", preflight),
        ("OPTIONS", preflight[:1]),
        ("OPTIONS", preflight[1:]),
        ("GET", preflight),
    ):
        headers = (("authorization", f"Bearer {EXPIRED}"), *lines)
        yield Case(name="preflight", rules="default", method=method, headers=headers)


@dataclass(kw_only=True)
class Oracle:
    """A running Envoy. ``seen`` is what arrived behind it with the last request that it let through."""

    port: int
    seen: dict[str, list[str]] = field(default_factory=dict)

    def answer(self, case: Case) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(case.method, case.path, skip_accept_encoding=True)
        for name, value in (("x-rules", case.rules), *case.headers):
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        if response.status != 200:
            return response.status, body
        self.seen = json.loads(body)
        return 200, ""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    folder = tmp_path_factory.mktemp("envoy")
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    (folder / "envoy.json").write_text(json.dumps(configuration(upstream.server_address[1])))
    command = [str(find_envoy()), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--disable-hot-restart"]
    command += ["--admin-address-path", str(folder / "admin"), "--log-level", "error"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Oracle(port=listening(folder, process))
        finally:
            process.terminate()
            upstream.shutdown()
            upstream.server_close()


class Echo(BaseHTTPRequestHandler):
    """Answers with the request headers that it got."""

    def do_GET(self) -> None:
        seen: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            seen.setdefault(name.lower(), []).append(value)
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_OPTIONS = do_GET  # noqa: N815 (the name is the library's)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (likewise)
        """Stay quiet."""


def listening(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """The port of the listener, as soon as Envoy says that it is ready."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        assert process.poll() is None, (folder / "log").read_text()
        address = (folder / "admin").read_text() if (folder / "admin").exists() else ""
        if address:  # the file is there before its text is
            admin = http.client.HTTPConnection(address, timeout=5)
            admin.request("GET", "/listeners?format=json")
            statuses = json.loads(admin.getresponse().read() or b"{}").get("listener_statuses", [])
            admin.close()
            if statuses and statuses[0]["local_address"]["socket_address"]["port_value"]:
                return int(statuses[0]["local_address"]["socket_address"]["port_value"])
        time.sleep(0.02)
    pytest.fail("Envoy did not start")


def configuration(upstream: int) -> dict[str, Any]:
    def address(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def extension(name: str, message: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{message}", **fields}}

    jwt_authn = extension(
        "jwt",
        "filters.http.jwt_authn.v3.JwtAuthentication",
        bypass_cors_preflight=True,
        providers={f"{name}-{n}": provider(by) for name, rules in RULES.items() for n, by in enumerate(rules)},
        rules=[
            {
                "match": {"prefix": "/", "headers": [{"name": "x-rules", "string_match": {"exact": name}}]},
                "requires": requirement([f"{name}-{n}" for n in range(len(rules))]),
            }
            for name, rules in RULES.items()
        ],
    )
    manager = extension(
        "hcm",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="x",
        route_config={
            "virtual_hosts": [
                {
                    "name": "x",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ]
        },
        http_filters=[jwt_authn, extension("router", "filters.http.router.v3.Router")],
    )
    endpoint = {"endpoint": {"address": address(upstream)}}
    return {
        "admin": {"address": address(0)},
        "static_resources": {
            "listeners": [{"name": "x", "address": address(0), "filter_chains": [{"filters": [manager]}]}],
            "clusters": [
                {
                    "name": "upstream",
                    "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ],
        },
    }


def provider(by: JwtRule) -> dict[str, Any]:
    """A rule as Istio gives it to Envoy."""
    assert isinstance(by.keys, InlineKeys)
    return {
        "issuer": by.issuer,
        "local_jwks": {"inline_string": by.keys.jwks},
        "audiences": list(by.audiences),
        "from_headers": [{"name": place.name, "value_prefix": place.prefix} for place in by.from_headers],
        "from_params": list(by.from_params),
        "from_cookies": list(by.from_cookies),
        "forward": by.forward_original_token,
        "forward_payload_header": by.output_payload_to_header,
        "claim_to_headers": [
            {"header_name": output.header, "claim_name": output.claim} for output in by.output_claim_to_headers
        ],
        "payload_in_metadata": "payload",
    }


def requirement(providers: list[str]) -> dict[str, Any]:
    """Istio's tree: any provider, or for each of them that its token is missing."""

    def any_of(*members: Mapping[str, Any]) -> dict[str, Any]:
        return {"requires_any": {"requirements": list(members)}}

    optional = [any_of({"provider_name": name}, {"allow_missing": {}}) for name in providers]
    if len(providers) == 1:
        return optional[0]
    return any_of(*({"provider_name": name} for name in providers), {"requires_all": {"requirements": optional}})


def ours(case: Case, posture: Posture = Posture.ISTIO) -> tuple[int, str, Reason | Mutations]:
    rules = RULES[case.rules]
    keys: Mapping[KeySource, KeySet] = {
        by.keys: KeySet.parse(by.keys.jwks) for by in rules if isinstance(by.keys, InlineKeys)
    }
    http_request = request(*case.headers, path=case.path, method=case.method)
    found = authenticate(http_request, rules, keys, time.time(), posture, may_wait=False)
    if isinstance(found, Authenticated):
        return 200, "", found.mutations
    assert isinstance(found, TokenRefused)
    return found.status, found.text, found.reason


def forwarded(case: Case, mutations: Mutations) -> dict[str, list[str]]:
    """The headers that go on to the workload under these mutations."""
    lines: dict[str, list[str]] = {}
    for name, value in case.headers:
        if name not in mutations.remove_headers and name not in dict(mutations.set_headers):
            lines.setdefault(name, []).append(value)
    for name, value in mutations.set_headers:
        lines.setdefault(name, []).append(value)
    return lines


@pytest.mark.parametrize("make", [each_token, each_place, pairs, others])
def test_envoy_and_we_give_the_same_answer(make: Callable[[], Iterable[Case]], oracle: Oracle) -> None:
    good = Case(name="good", rules="default", headers=(("authorization", f"Bearer {GOOD}"),))
    assert ours(good)[:2] == (200, "")  # or each case would be one of an expired token
    for case in make():
        theirs = oracle.answer(case)
        status, text, outcome = ours(case)
        if case.name in STRICTER:
            assert outcome is STRICTER[case.name], case
            assert theirs != (status, text), case
            continue
        assert (status, text) == theirs, case
        if isinstance(outcome, Mutations):
            added_by_envoy = {"host", "content-length", "x-rules", "x-request-id", "x-forwarded-proto"}
            seen = {
                name: lines
                for name, lines in oracle.seen.items()
                if name not in added_by_envoy and not name.startswith("x-envoy-")
            }
            assert forwarded(case, outcome) == seen, case


def test_every_character_of_a_list_is_written_as_envoy_writes_it(oracle: Oracle) -> None:
    characters = [chr(point) for point in (*range(0xD800), *range(0xE000, 0x1D200), *range(0xE0000, 0xE0100))]
    for start in range(0, len(characters), 2000):
        text = "".join(characters[start : start + 2000])
        headers = (("authorization", f"Bearer {token(lst=[text])}"),)

        assert oracle.answer(Case(name=hex(start), rules="outputs", headers=headers)) == (200, "")
        assert oracle.seen["x-lst"] == [claim_text([text])]


def test_a_claim_with_a_dot_in_its_name_is_ours_alone(oracle: Oracle) -> None:
    """In brackets: Envoy finds nothing there, so the meaning of no policy changes."""
    text = token(**cast("Any", {"a.b": {"c": "x"}}))
    case = Case(name="", rules="dotted", headers=(("authorization", f"Bearer {text}"),))
    status, _, mutations = ours(case)

    assert oracle.answer(case) == (200, "")
    assert {"x-dotted", "x-walked"}.isdisjoint(oracle.seen)
    assert isinstance(mutations, Mutations)
    assert (status, mutations.set_headers) == (200, (("x-dotted", "x"),))


def test_strict_accepts_nothing_that_envoy_refuses() -> None:
    for case in itertools.chain(each_token(), each_place(), pairs(), others()):
        strict, istio = ours(case, Posture.STRICT), ours(case)
        assert strict == istio or strict[0] in (401, 403), case
