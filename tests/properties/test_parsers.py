"""Every parser gives its type or its own error, whatever it is given."""

import contextlib
import json
import re

from countersign.core import hosts, paths
from countersign.core.facts import RequestFacts
from countersign.core.identity import PeerError, PeerRules, PeerSource, authenticate_peer
from countersign.core.spiffe import SpiffeId, SpiffeIdError
from countersign.core.xfcc import MAX_ELEMENTS, XfccError
from countersign.core.xfcc import parse as parse_xfcc
from countersign.policy.match import address_readings, namespace, network, wildcard
from countersign.policy.parse import Loaded
from countersign.policy.parse import parse as parse_policies
from countersign.policy.problems import PolicyError
from countersign.wire.codec import RequestError, decode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.requests import XFCC, authorization, facts, peer_authentication, request_authentication

BOUNDED = settings(max_examples=120, deadline=None)
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)  # lone surrogates included
SPIFFE_TEXT = st.text("spife:/abcTD.-_%\n\x00\u0131", max_size=40)


@BOUNDED
@given(ANY_TEXT | SPIFFE_TEXT.map(lambda text: f"spiffe://{text}"))
def test_a_spiffe_id_reads_back_as_itself_or_is_refused(text: str) -> None:
    with contextlib.suppress(SpiffeIdError):
        parsed = SpiffeId.parse(text)
        assert str(parsed) == text
        assert SpiffeId.parse(str(parsed)) == parsed


@BOUNDED
@given(
    st.from_regex(r"[a-z0-9._-]{1,20}", fullmatch=True),
    st.lists(st.from_regex(r"[A-Za-z0-9._-]{1,9}", fullmatch=True).filter(lambda s: s not in {".", ".."}), max_size=5),
)
def test_every_well_formed_spiffe_id_is_read(domain: str, segments: list[str]) -> None:
    text = "/".join([f"spiffe://{domain}", *segments])

    assert str(SpiffeId.parse(text)) == text


XFCC_TEXT = st.lists(
    st.sampled_from(
        ["By=", "Hash=", "URI=", "Subject=", "DNS=", ",", ";", '"', "\\", "=", " ", "a", "spiffe://td/a", "\n", "\xe9"]
    ),
    max_size=25,
).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["by", "uri", "hash", "URI", "x"]), inner)
    ),
    max_leaves=8,
)


@BOUNDED
@given(ANY_TEXT | XFCC_TEXT | st.lists(JSON, max_size=3).map(json.dumps) | ANY_TEXT.map(lambda text: f"[{text}]"))
def test_xfcc_gives_elements_or_refuses(value: str) -> None:
    with contextlib.suppress(XfccError):
        elements = parse_xfcc(value)
        assert (len(elements) == 0) == (value == "")
        assert len(elements) <= MAX_ELEMENTS


@BOUNDED
@given(ANY_TEXT | XFCC_TEXT, ANY_TEXT | SPIFFE_TEXT, st.sampled_from(PeerSource))
def test_a_peer_is_proven_absent_or_refused(line: str, principal: str, source: PeerSource) -> None:
    with contextlib.suppress(PeerError):
        peer = authenticate_peer(facts((XFCC, line), principal=principal), PeerRules(source=source)).id
        assert peer is None or peer.path


@BOUNDED
@given(XFCC_TEXT)
def test_whatever_a_client_writes_to_the_left_the_last_element_is_the_peer_or_nobody_is(left: str) -> None:
    hop = "Hash=ab;URI=spiffe://td/ns/a/sa/web"

    with contextlib.suppress(PeerError):
        peer = authenticate_peer(facts((XFCC, f"{left},{hop}"), principal=""), PeerRules(source=PeerSource.XFCC))
        assert str(peer.id) == "spiffe://td/ns/a/sa/web"


PATH_PARTS = st.lists(
    st.sampled_from(
        ["/", "//", ".", "..", "a", "b", ";", ";x=y", "\\", "%2e", "%2F", "%5c", "%61", "%25", "%3b", "%zz", "%", "é"]
    ),
    max_size=15,
).map(lambda parts: "/" + "".join(parts))


@BOUNDED
@given(PATH_PARTS)
@example("/%%361")
def test_normalising_an_acceptable_path_is_idempotent(path: str) -> None:
    """Not so for a broken escape: `%%361` becomes `%61` becomes `a`. That is why a broken escape is refused first."""
    try:
        paths.refuse_unacceptable(path)
    except paths.PathError:
        return
    normal = paths.normalise(path)

    assert paths.normalise(normal) == normal
    assert normal.startswith("/")
    assert not {"//", "/./", "/../", "\\", ";"} & {normal[i : i + n] for n in (1, 2, 3, 4) for i in range(len(normal))}
    paths.refuse_unacceptable(normal)


@BOUNDED
@given(PATH_PARTS | ANY_TEXT)
def test_a_path_has_up_to_three_readings_of_which_the_first_is_as_sent(path: str) -> None:
    found = paths.readings(path)

    assert found[0] == path
    assert len(found) in {1, 2, 3}
    assert len(set(found)) == len(found)
    with contextlib.suppress(paths.PathError):
        paths.refuse_unacceptable(path)
        assert paths.without_query(path).isascii()


@BOUNDED
@given(st.text("aB.:8[]@\u212a", max_size=12) | ANY_TEXT)
def test_a_host_has_its_readings_of_which_the_first_is_as_sent(host: str) -> None:
    folded = hosts.fold(host)
    found = hosts.readings(folded)

    assert hosts.fold(folded) == folded
    assert len(folded) == len(host)
    assert found[0] == folded
    assert len(set(found)) == len(found) <= 4
    assert all(found[1:])
    with contextlib.suppress(hosts.HostError):
        hosts.refuse_unacceptable(host)
        assert host.isascii()


@BOUNDED
@given(ANY_TEXT | st.ip_addresses().map(str) | st.text("0123456789.:/%ef", max_size=20), st.ip_addresses().map(str))
def test_a_network_is_read_or_refused_and_every_address_has_an_answer(text: str, address: str) -> None:
    assert address_readings(address)[0] in network(address)
    with contextlib.suppress(ValueError):
        assert address_readings(text)[0] in network(text.partition("%")[0])
    with contextlib.suppress(ValueError):
        network(text)


@BOUNDED
@given(st.text("ab*", max_size=5), st.text("ab*", max_size=6))
def test_a_wildcard_matches_by_its_definition(pattern: str, text: str) -> None:
    if pattern == "*":
        expected = text != ""
    elif pattern[:1] == "*":
        expected = text[len(text) - len(pattern) + 1 :] == pattern[1:] and len(text) >= len(pattern) - 1
    elif pattern[-1:] == "*":
        expected = text[: len(pattern) - 1] == pattern[:-1]
    else:
        expected = text == pattern

    assert wildcard(pattern)(text) == expected


@BOUNDED
@given(st.text("ab*.", max_size=6), st.text("ab.", max_size=8), st.text("ab./ns", max_size=8))
def test_a_namespace_matches_as_istios_regular_expression(pattern: str, name: str, more: str) -> None:
    expression = ".*/ns/" + ".*".join(re.escape(part) for part in pattern.split("*")) + "/.*"

    for principal in (f"spiffe://td/ns/{name}/sa/x", f"spiffe://td/{more}/ns/{name}{more}/"):
        assert namespace(pattern)(principal) == (re.fullmatch(expression, principal) is not None)


@BOUNDED
@given(st.binary(max_size=80))
def test_bytes_are_a_request_or_refused(payload: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert isinstance(decode(payload), RequestFacts)


# --- policies ---------------------------------------------------------------------------------------------------------

SOUND = (
    authorization("{action: DENY, rules: [{from: [{source: {principals: ['*'], ipBlocks: [10.0.0.0/8]}}]}]}"),
    authorization(
        "{rules: [{to: [{operation: {paths: [/a], ports: ['80']}}], when: [{key: source.ip, values: ['::1']}]}]}"
    ),
    authorization("{rules: [{when: [{key: 'request.auth.claims[a][b]', values: [x], notValues: [y]}]}]}"),
    peer_authentication(
        "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}"
    ),
    request_authentication(
        "{jwtRules: [{issuer: i, jwksUri: https://k/, timeout: 5s, fromHeaders: [{name: a, prefix: b}]}]}"
    ),
)


def _load(text: str) -> Loaded | PolicyError:
    found = _outcome(text)
    if isinstance(found, PolicyError):
        assert found.problems
        assert all(problem.position.line > 0 and problem.position.column > 0 for problem in found.problems)
        assert str(found)
    return found


def _outcome(text: str) -> Loaded | PolicyError:
    try:
        return parse_policies({"f.yaml": text}, "ns", lambda _: "")
    except PolicyError as error:
        return error


@BOUNDED
@given(ANY_TEXT | st.text("{}[]:,-&*!|>'\"%@`#? \n\tabk", max_size=60))
def test_any_text_is_policies_or_a_policy_error(text: str) -> None:
    _load(text)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SOUND), st.data())
def test_a_mutated_policy_loads_or_is_a_policy_error(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 6))
        new = data.draw(
            st.sampled_from(
                ["", "null", "[]", "{}", "5", "true", "*", "''", "&a ", "*a", "!!x ", "\n", "\udcff", ": ", ", "]
            )
        )
        text = text[:at] + new + text[at + cut :]

    _load(text)


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 70000)
    | st.sampled_from(["", "*", "a", "10.0.0.0/8", "ALLOW", "DENY", "5s", "source.ip"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "from",
                    "to",
                    "when",
                    "source",
                    "operation",
                    "key",
                    "values",
                    "notValues",
                    "principals",
                    "paths",
                    "ports",
                    "rules",
                    "action",
                    "mtls",
                    "mode",
                    "portLevelMtls",
                    "selector",
                    "matchLabels",
                    "jwtRules",
                    "issuer",
                    "jwks",
                    "jwksUri",
                    "fromHeaders",
                    "name",
                    "prefix",
                    "timeout",
                    "80",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@BOUNDED
@given(st.sampled_from(["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]), _VALUES)
def test_any_value_as_a_spec_loads_or_is_a_policy_error(kind: str, spec: object) -> None:
    resource = {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": "a", "namespace": "n"},
        "spec": spec,
    }

    _load(json.dumps(resource))


@BOUNDED
@given(st.sampled_from(SOUND), st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20))
def test_what_loads_loads_the_same_whatever_stands_beside_it(sound: str, comment: str) -> None:
    alone, beside = _load(sound), _load(sound + f"# {comment}\n---\nkind: ConfigMap\ndata: {{a: b}}\n")

    assert isinstance(alone, Loaded)
    assert isinstance(beside, Loaded)
    assert alone.resources == beside.resources
