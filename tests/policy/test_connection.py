"""What the connection has: the client's address, the server name, what other filters wrote of it."""

from typing import Any, Final

import pytest
from countersign.core.facts import Endpoint, RequestFacts
from countersign.core.posture import Posture
from countersign.policy.match import Outcome
from countersign.policy.spec import evaluate
from countersign.policy.terms.evidence import Evidence
from countersign.policy.trace import RuleTrace
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from tests.support.requests import authorization, evidence, facts, scoped

NO, MAYBE, YES = Outcome.NO_MATCH, Outcome.UNREADABLE, Outcome.MATCH
STRICT, ISTIO = Posture.STRICT, Posture.ISTIO


def _trace(rule: str, seen: Evidence) -> RuleTrace:
    (trace,) = evaluate(scoped(authorization(f"{{rules: [{rule}]}}")).http, seen).rules
    return trace


def _when(key: str, *values: str, negated: bool = False) -> str:
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{{when: [{{key: '{key}', {'notValues' if negated else 'values'}: [{quoted}]}}]}}"


def _source(field: str, value: str) -> str:
    return f"{{from: [{{source: {{{field}: ['{value}']}}}}]}}"


# --- the client's address ---------------------------------------------------------------------------------------------

REMOTE: Final = [
    (_source("remoteIpBlocks", "1.2.3.0/24"), _source("notRemoteIpBlocks", "1.2.3.0/24")),
    (_when("remote.ip", "1.2.3.0/24"), _when("remote.ip", "1.2.3.0/24", negated=True)),
]


@pytest.mark.parametrize(("positive", "negative"), REMOTE)
@pytest.mark.parametrize(
    ("address", "inside"),
    [("1.2.3.4", True), ("1.2.4.4", False), ("::1", False), ("fe80::1%eth0", False)],
)
def test_the_clients_address_is_not_the_connections(
    positive: str, negative: str, address: str, *, inside: bool
) -> None:
    for posture in Posture:
        for source in ("1.2.3.9", "9.9.9.9"):
            seen = evidence(facts(source=source), posture=posture, remote_ip=address)
            assert _trace(positive, seen).outcome is (YES if inside else NO)
            assert _trace(negative, seen).outcome is (NO if inside else YES)
            assert _trace(positive, seen).terms[0].got == address


@pytest.mark.parametrize(("positive", "negative"), REMOTE)
@pytest.mark.parametrize("address", ["", "garbage", "1.2.3.4:80", "1.2.3"])
def test_a_clients_address_that_is_none_cannot_be_read_in_strict(positive: str, negative: str, address: str) -> None:
    strict, istio = (
        evidence(facts(source="1.2.3.4"), posture=posture, remote_ip=address) for posture in (STRICT, ISTIO)
    )

    assert (_trace(positive, strict).outcome, _trace(negative, strict).outcome) == (MAYBE, MAYBE)
    assert (_trace(positive, istio).outcome, _trace(negative, istio).outcome) == (NO, YES)
    assert _trace(positive, strict).terms[0].got == (address or "absent")


@pytest.mark.parametrize(("positive", "negative"), REMOTE)
def test_an_ipv4_address_in_ipv6_is_one_of_each_in_strict_and_ipv6_in_istio(positive: str, negative: str) -> None:
    strict, istio = (
        evidence(facts(source="9.9.9.9"), posture=posture, remote_ip="::ffff:1.2.3.4") for posture in (STRICT, ISTIO)
    )

    assert (_trace(positive, strict).outcome, _trace(negative, strict).outcome) == (MAYBE, MAYBE)
    assert (_trace(positive, istio).outcome, _trace(negative, istio).outcome) == (NO, YES)
    both = _source("remoteIpBlocks", "1.2.3.0/24', '::ffff:0:0/96")
    assert (_trace(both, strict).outcome, _trace(both, istio).outcome) == (YES, YES)
    elsewhere = _source("remoteIpBlocks", "1.2.4.0/24")
    assert (_trace(elsewhere, strict).outcome, _trace(elsewhere, istio).outcome) == (NO, NO)


# --- the server name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sni", "value", "outcome"),
    [
        ("shop.example", "shop.example", YES),
        ("shop.example", "*.example", YES),
        ("shop.example", "shop.*", YES),
        ("shop.example", "*", YES),
        ("shop.example", "hop.example", NO),
        ("shop.example", "shop.exampl", NO),
        ("shop.example", "Shop.example", NO),  # names arrive in lower case, and Istio compares as written
        ("", "*", NO),
        ("", "a", NO),
    ],
)
def test_a_server_name_is_compared_as_written(sni: str, value: str, outcome: Outcome) -> None:
    for posture in Posture:
        seen = evidence(facts(sni=sni), posture=posture)
        assert _trace(_when("connection.sni", "none", value), seen).outcome is outcome
        assert _trace(_when("connection.sni", value, negated=True), seen).outcome is (NO if outcome is YES else YES)
        assert _trace(_when("connection.sni", value), seen).terms[0].got == (sni or "absent")


@pytest.mark.parametrize("posture", Posture)
def test_a_server_name_that_envoy_does_not_say_cannot_be_read(posture: Posture) -> None:
    """Without `include_tls_session` Envoy's own filters know it and Countersign does not."""
    seen = evidence(facts(sni=None), posture=posture)

    assert _trace(_when("connection.sni", "*"), seen).outcome is MAYBE
    assert _trace(_when("connection.sni", "a", negated=True), seen).outcome is MAYBE
    assert _trace(_when("connection.sni", "*"), seen).terms[0].got == "absent"


# --- what other filters wrote -----------------------------------------------------------------------------------------

KEY: Final = "experimental.envoy.filters.http.my_filter[role]"


def _wrote(value: Any, namespace: str = "envoy.filters.http.my_filter", key: str = "role") -> RequestFacts:
    return facts(metadata={namespace: ParseDict({key: value, "other": "admin"}, Struct())})


@pytest.mark.parametrize(
    ("found", "value", "outcome"),
    [
        ("admin", "admin", YES),
        ("admin", "adm*", YES),
        ("admin", "*min", YES),
        ("admin", "*", YES),
        ("", "*", NO),
        ("admin", "Admin", NO),
        ("admin", "[admin]", NO),
        (["admin"], "admin", NO),
        (["admin"], "[admin]", YES),
        (["user", "admin"], "[admin]", YES),
        (["user", "admin"], "[adm*]", YES),
        (["user"], "[admin]", NO),
        ([], "[*]", NO),
        ([""], "[*]", NO),
        ([""], "[]", YES),
        (["[admin]"], "[[admin]]", NO),
        (["X"], "[X]", YES),
        (["admin"], "[[admin]]", YES),  # Istio trims all the brackets at the ends
        (["admin", 5, None, {}], "[admin]", YES),
        ([5], "[5]", NO),
        ([5, None, True, {}, []], "[*]", NO),
        ([["admin"]], "[admin]", NO),
        ("[admin", "[admin", YES),
        (True, "*", NO),
        (5, "5", NO),
        (None, "*", NO),
        ({"admin": "admin"}, "*", NO),
        ({"admin": "admin"}, "[admin]", NO),
    ],
)
def test_metadata_is_a_text_or_with_brackets_a_list(found: Any, value: str, outcome: Outcome) -> None:
    for posture in Posture:
        seen = evidence(_wrote(found), posture=posture)
        assert _trace(_when(KEY, "none", value), seen).outcome is outcome
        assert _trace(_when(KEY, "[none]", value), seen).outcome is outcome
        assert _trace(_when(KEY, value, negated=True), seen).outcome is (NO if outcome is YES else YES)


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        ("envoy.filters.http.other", "role"),
        ("http.my_filter", "role"),
        ("my_filter", "role"),
        ("envoy.filters.http.my_filter", "Role"),
    ],
)
def test_metadata_of_another_filter_or_key_is_absent(namespace: str, key: str) -> None:
    seen = evidence(_wrote("admin", namespace, key))

    assert _trace(_when(KEY, "*"), seen).outcome is NO
    assert _trace(_when(KEY, "*", negated=True), seen).outcome is YES
    assert _trace(_when(KEY, "*"), seen).terms[0].got == "absent"
    assert _trace(_when(KEY, "*"), evidence(_wrote("admin"))).terms[0].got == "admin"


def test_all_of_it_is_there_on_a_connection_without_http() -> None:
    tcp = RequestFacts(
        http=None,
        source=Endpoint(address="10.0.0.1"),
        destination=Endpoint(address="10.0.0.2", port=80),
        sni="shop.example",
        metadata={"envoy.filters.http.my_filter": {"role": "admin"}},
    )

    for rule in (_when("connection.sni", "*.example"), _when(KEY, "admin"), _when("destination.port", "80")):
        assert _trace(rule, evidence(tcp)).outcome is YES
