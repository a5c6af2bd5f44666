"""PeerAuthentication: which ports want mTLS."""

from enum import StrEnum

import pytest
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError
from countersign.policy.resources import MtlsMode, PeerAuthentication

from tests.support.requests import load, peer_authentication


def _read(spec: str) -> PeerAuthentication:
    (resource,) = load(peer_authentication(spec)).peer_authentications
    return resource


def _refused(spec: str) -> list[tuple[StrEnum, str, str, str]]:
    with pytest.raises(PolicyError) as error:
        parse({"f": peer_authentication(spec)}, None, lambda _: "")
    return [(p.code, p.message, p.help, f"{p.position.line}:{p.position.column}") for p in error.value.problems]


@pytest.mark.parametrize(
    ("spec", "mode"),
    [
        ("null", MtlsMode.UNSET),
        ("{}", MtlsMode.UNSET),
        ("{mtls: null}", MtlsMode.UNSET),
        ("{mtls: {}}", MtlsMode.UNSET),
        ("{mtls: {mode: null}}", MtlsMode.UNSET),
        ("{mtls: {mode: UNSET}}", MtlsMode.UNSET),
        ("{mtls: {mode: DISABLE}}", MtlsMode.DISABLE),
        ("{mtls: {mode: PERMISSIVE}}", MtlsMode.PERMISSIVE),
        ("{mtls: {mode: STRICT}}", MtlsMode.STRICT),
    ],
)
def test_a_mode_is_one_of_four_and_unset_where_nothing_is_said(spec: str, mode: MtlsMode) -> None:
    assert _read(spec).mode is mode


def test_ports_are_read_as_istios_documentation_writes_them() -> None:
    ports = "{8080: {mode: DISABLE}, '1': {mode: STRICT}, 65535: {}, 2: null}"
    spec = f"{{selector: {{matchLabels: {{app: a}}}}, portLevelMtls: {ports}}}"

    assert _read(spec).ports == {
        8080: MtlsMode.DISABLE,
        1: MtlsMode.STRICT,
        65535: MtlsMode.UNSET,
        2: MtlsMode.UNSET,
    }


@pytest.mark.parametrize(
    "port", ["0", "65536", "99999", "100000", "-1", "'080'", "010", "0x50", "1_000", "22:22", "http", "''", "'8\uff10'"]
)
def test_what_is_no_port_is_an_error(port: str) -> None:
    found = _refused(f"{{selector: {{matchLabels: {{app: a}}}}, portLevelMtls: {{{port}: {{mode: STRICT}}}}}}")

    assert [code for code, *_ in found] == [Code.INVALID_VALUE]
    assert found[0][1].endswith("is not a port, 1 to 65535")


@pytest.mark.parametrize("key", ["8080.5", "true", "null", "[a]"])
def test_a_port_that_is_not_written_as_one_is_an_error(key: str) -> None:
    found = _refused(
        f"{{selector: {{matchLabels: {{app: a}}}}, portLevelMtls: {{? {key} : {{mode: STRICT}}, 80: {{}}}}}}"
    )

    assert [code for code, *_ in found] == [Code.WRONG_TYPE]


@pytest.mark.parametrize("selector", ["", "selector: {}, ", "selector: {matchLabels: {}}, "])
def test_ports_belong_to_a_selected_workload(selector: str) -> None:
    found = _refused(f"{{{selector}portLevelMtls: {{80: {{mode: STRICT}}}}}}")

    assert (Code.INVALID_VALUE, "`portLevelMtls` without a `selector`", "say whose ports: add matchLabels") in [
        row[:3] for row in found
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{mtls: {mode: STRIKT}}", (Code.INVALID_VALUE, "unknown mode `STRIKT`", "did you mean `STRICT`?", "4:21")),
        (
            "{mtls: {mode: strict}}",
            (Code.INVALID_VALUE, "unknown mode `strict`", "known here: DISABLE, PERMISSIVE, STRICT, UNSET", "4:21"),
        ),
        ("{mtls: {mode: 3}}", (Code.WRONG_TYPE, "`mtls.mode` wants a string, found a number", 'quote it: "3"', "4:21")),
        (
            "{mtls: {mode: STRICT, mode: STRICT}}",
            (Code.DUPLICATE_KEY, "`mode` is here twice, first at line 4", "keep one of them", "4:29"),
        ),
        ("{mtls: STRICT}", (Code.WRONG_TYPE, "`mtls` wants an object, found a string", "", "4:14")),
        (
            "{mtls: {modes: STRICT}}",
            (Code.UNKNOWN_FIELD, "unknown field `modes` in `mtls`", "did you mean `mode`?", "4:15"),
        ),
        ("{mtl: {}}", (Code.UNKNOWN_FIELD, "unknown field `mtl` in `spec`", "did you mean `mtls`?", "4:8")),
        (
            "{targetRefs: []}",
            (
                Code.UNKNOWN_FIELD,
                "unknown field `targetRefs` in `spec`",
                "known here: mtls, portLevelMtls, selector",
                "4:8",
            ),
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}",
            (Code.INVALID_VALUE, "`portLevelMtls` is empty", "leave it out", "4:56"),
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: STRICT}}",
            (Code.WRONG_TYPE, "`portLevelMtls.80` wants an object, found a string", "", "4:61"),
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: X}}}",
            (Code.INVALID_VALUE, "unknown mode `X`", "known here: DISABLE, PERMISSIVE, STRICT, UNSET", "4:68"),
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_way_out(spec: str, expected: tuple[StrEnum, str, str, str]) -> None:
    assert _refused(spec) == [expected]
