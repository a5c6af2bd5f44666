"""How a configuration may be spelled: what Envoy reads in it is what `--check` reads."""

import json

import pytest
from countersign.core.identity import PeerSource
from countersign.policy.problems import Code
from countersign.proxy.lint.codes import EnvoyCode
from countersign.proxy.lint.look import Expected, look

from tests.proxy.test_lint import GOOD, PACKAGE

C = EnvoyCode


def _codes(text: str, expected: Expected | None = None) -> list[str]:
    return [str(each.code) for each in look(text.encode(), "envoy.yaml", expected or Expected()).problems]


def _with(before: str, after: str) -> str:
    assert before in GOOD
    return GOOD.replace(before, after, 1)


@pytest.mark.parametrize("true", ["true", "TRUE", "yes", "y", "Y", "on", "On", "t", "T", '"1"', '"t"'])
def test_everything_that_envoy_takes_for_true_is_true(true: str) -> None:
    assert _codes(_with("failure_mode_allow: false", f"failure_mode_allow: {true}")) == [C.FAILS_OPEN]
    assert _codes(_with("normalize_path: true", f"normalize_path: {{value: {true}}}")) == []


@pytest.mark.parametrize("false", ["false", "no", "off", "n", "f", '"0"', "~", "null"])
def test_what_it_takes_for_false_or_for_nothing_is_not(false: str) -> None:
    assert _codes(_with("failure_mode_allow: false", f"failure_mode_allow: {false}")) == []
    assert _codes(_with("normalize_path: true", f"normalize_path: {{value: {false}}}")) == [C.PATH_AS_SENT]


@pytest.mark.parametrize("four", ["4", "04", "0x4", "0X04", "+4", '" 4 "', "always_forward_only"])
def test_an_enum_has_many_spellings(four: str) -> None:
    assert _codes(_with("details: APPEND_FORWARD", f"details: {four}")) == [C.HEADER_FORWARDED]


@pytest.mark.parametrize("unknown", ["9", "10", "\u00b2", "\u0664", "4.0", "NONE", "-1x", "''", "[4]"])
def test_what_is_no_enum_ends_in_no_traceback(unknown: str) -> None:
    """Envoy refuses all of these."""
    _codes(_with("details: APPEND_FORWARD", f"details: {unknown}"), Expected(peer=PeerSource.XFCC))


@pytest.mark.parametrize("wait", ["soon", "250ms", "0.25", "[]", "{}", "1e-1s"])
def test_a_timeout_that_is_no_duration_is_a_finding_and_no_traceback(wait: str) -> None:
    assert _codes(_with("timeout: 0.25s", f"timeout: {wait}")) == [C.TIMEOUT]


def test_null_is_nothing_at_all() -> None:
    enabled = "filter_enabled: {default_value: {numerator: 0}}"
    denied = f"{enabled}\n{' ' * 22}deny_at_disable: {{default_value: true, runtime_key: %s}}"
    not_cleared = "clear_route_cache: false"

    assert _codes(_with(not_cleared, denied % "~")) == []
    assert _codes(_with(not_cleared, denied % "a")) == [C.ASKED_SOMETIMES]
    for null in ("~", "null", ""):
        assert _codes(_with(not_cleared, f"filter_enabled: {null}")) == []
        assert _codes(_with("normalize_path: true", f"upgrade_configs: {null}\n{' ' * 16}normalize_path: true")) == []
    assert _codes(_with(not_cleared, f"filter_enabled:\n{' ' * 24}default_value: ~")) == [C.ASKED_SOMETIMES]


def test_a_field_by_both_of_its_names_is_refused_and_so_it_is_twice_by_one() -> None:
    one, other = "failure_mode_allow: false", "failureModeAllow: true"
    for first, second in ((one, other), (other, one), (one, one)):
        assert str(Code.DUPLICATE_KEY) in _codes(_with(one, f"{first}\n{' ' * 22}{second}"))
    labels = "labels:\n      v_1: a\n      v1: b\n"  # not fields: anything may be a label

    assert _codes(_with("labels:\n", labels)) == []


@pytest.mark.parametrize("package", ["xds.type.v3", "udpa.type.v1"])
def test_a_typed_struct_is_what_it_says_it_is(package: str) -> None:
    def struct(kind: str, value: object) -> str:
        wrapped = {"@type": f"type.googleapis.com/{package}.TypedStruct", "type_url": f"{PACKAGE}.{kind}"}
        return json.dumps({**wrapped, **({} if value is None else {"value": value})})

    router = "                  - name: envoy.filters.http.router\n"
    for kind, found in (("lua.v3.Lua", [C.CHANGED_AFTERWARDS]), ("cors.v3.Cors", [])):
        for value in ({}, {"inline_code": "a"}, None):
            late = f"                  - {{name: late, typed_config: {struct(kind, value)}}}\n"
            assert _codes(_with(router, late + router)) == found

    off = struct("ext_authz.v3.ExtAuthzPerRoute", {"disabled": True})
    on = struct("ext_authz.v3.ExtAuthzPerRoute", {"check_settings": {}})
    match = "                        - match: {prefix: /}\n"
    for setting, found in ((off, [C.SWITCHED_OFF]), (on, [])):
        settings = f"{' ' * 26}typed_per_filter_config: {{envoy.filters.http.ext_authz: {setting}}}\n"
        assert _codes(_with(match, match + settings)) == found
