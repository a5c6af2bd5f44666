"""x-forwarded-client-cert: the whole header parses, in either form, or none of it counts."""

import contextlib
import json
import time
from typing import Any

import pytest
from countersign.core import xfcc
from countersign.core.xfcc import MAX_ELEMENTS, MAX_LENGTH, ClientCert, XfccError, parse

from tests.support import vectors

URI = "spiffe://td/ns/a/sa/b"


def test_an_empty_header_has_no_element() -> None:
    assert parse("") == ()


def test_every_key_of_the_text_form_is_read() -> None:
    value = (
        'By=spiffe://td/x;By=spiffe://td/y;Hash=ab01;Cert="c%0A";Chain="d";Subject="CN=s";'
        f'URI={URI};DNS=a.example;DNS=b.example;Issuer="CN=ca"'
    )

    assert parse(value) == (
        ClientCert(
            by=("spiffe://td/x", "spiffe://td/y"),
            hash="ab01",
            cert="c%0A",
            chain="d",
            subject="CN=s",
            uris=(URI,),
            dns=("a.example", "b.example"),
            issuer="CN=ca",
        ),
    )


def test_every_key_of_the_json_form_is_read() -> None:
    element = {
        "by": ["spiffe://td/x", "spiffe://td/y"],
        "hash": "ab01",
        "cert": "c%0A",
        "chain": "d",
        "subject": "CN=s",
        "uri": [URI],
        "dns": ["a.example", "b.example"],
        "issuer": "CN=ca",
    }

    assert parse(json.dumps([element])) == parse(
        f'By=spiffe://td/x;By=spiffe://td/y;Hash=ab01;Cert="c%0A";Chain="d";Subject="CN=s";URI={URI};'
        'DNS=a.example;DNS=b.example;Issuer="CN=ca"'
    )


@pytest.mark.parametrize("key", ["hash", "HASH", "hAsH"])
def test_keys_of_the_text_form_have_no_case(key: str) -> None:
    assert parse(f"{key}=1")[0].hash == "1"


def test_keys_of_the_json_form_are_as_envoy_writes_them() -> None:
    assert parse('[{"uri":["x"]}]')[0].uris == ("x",)
    with pytest.raises(XfccError):
        parse('[{"SAN":"1"},{"uri":["x"]}]')


@pytest.mark.parametrize(
    ("value", "uris"),
    [
        ("Hash=1", None),
        ("URI=", ("",)),
        ('URI=""', ("",)),
        (f"URI={URI}", (URI,)),
        (f'URI="{URI}"', (URI,)),
        ("URI=a;URI=b", ("a", "b")),
        ("URI=a;URI=a", ("a", "a")),
        ('[{"hash":"1"}]', None),
        ('[{"uri":[]}]', ("",)),
        ('[{"uri":[""]}]', ("",)),
        ('[{"uri":["a","b"]}]', ("a", "b")),
    ],
)
def test_no_word_of_uris_is_told_from_no_uri(value: str, uris: tuple[str, ...] | None) -> None:
    assert parse(value)[0].uris == uris


@pytest.mark.parametrize(
    ("quoted", "subject"),
    [
        (r'"CN=a\"b"', 'CN=a"b'),
        (r'"CN=a\\"', "CN=a\\"),
        (r'"CN=a\,b\;c"', "CN=a,b;c"),
        ('"a,b;c=d"', "a,b;c=d"),
        ('" "', " "),
        ('""', ""),
    ],
)
def test_quotes_hide_delimiters_and_a_backslash_hides_a_quote(quoted: str, subject: str) -> None:
    assert parse(f"Subject={quoted};URI={URI}") == (ClientCert(subject=subject, uris=(URI,)),)


@pytest.mark.parametrize("comma", [",", ", "])
def test_elements_are_apart_by_a_comma_that_one_space_may_follow(comma: str) -> None:
    assert [element.hash for element in parse(f"Hash=1{comma}Hash=2")] == ["1", "2"]


@pytest.mark.parametrize(
    "value",
    [
        "Hash",
        "Hash=1;URI",
        "=",
        "=1",
        ";",
        ",",
        "Hash=1;",
        ";Hash=1",
        "Hash=1,",
        "Hash=1, ",
        ",Hash=1",
        "Hash=1,,Hash=2",
        "Hash=1;;URI=a",
        "Hash=1,  Hash=2",
        "Hash=1 ,Hash=2",
        " Hash=1",
        "Hash=1 ",
        "Hash =1",
        "Ha-sh=1",
        "Hash= 1",
        "Hash=1\t",
        "Hash=1\n",
        "Hash=1\x00",
        "Hash=1\x7f",
        "Hash=é",
        "Hash=1\udcff",
        "Hash=a=b",
        'Hash=a"b',
        "Hash=a\\b",
        'Subject="CN=a',
        'Subject="CN=a\\"',
        'Subject="CN=a"x',
        'Subject="CN=a\n"',
        'Subject="CN=é"',
        'Subject="CN=a\\\n"',
        'Subject="CN=a\\é"',
        "SAN=spiffe://td/a",
        "\uff28ash=1",
        "{}",
        "spiffe://td/a",
    ],
)
def test_a_text_that_envoy_does_not_write_is_refused(value: str) -> None:
    with pytest.raises(XfccError):
        parse(value)


@pytest.mark.parametrize("key", ["Hash", "Cert", "Chain", "Subject", "Issuer"])
def test_a_key_that_can_stand_once_is_refused_twice_in_any_case(key: str) -> None:
    assert len(parse(f"{key}=a,{key}=a")) == 2
    for twin in (key, key.upper()):
        with pytest.raises(XfccError, match="twice in one element"):
            parse(f"{key}=a;{twin}=a")


@pytest.mark.parametrize(
    "value",
    [
        "[",
        "[]",
        "[]]",
        "[{}]",
        "[1]",
        "[null]",
        '["a"]',
        '[{"hash":"1"},]',
        '[,{"hash":"1"}]',
        '[{"hash":"1"}],Hash=1',
        '[garbage,{"hash":"1"}]',
        '[{"a":"b"},{"hash":"1"}]',
        '[{"hash":1}]',
        '[{"hash":null}]',
        '[{"hash":["1"]}]',
        '[{"hash":{}}]',
        '[{"uri":[1]}]',
        '[{"uri":[["a"]]}]',
        '[{"uri":{"a":"b"}}]',
        '[{"hash":"1","hash":"1"}]',
        '[{"hash":"1","HASH":"1"}]',
        '[{"uri":["a\\n"]}]',
        '[{"uri":["\\u0000"]}]',
        '[{"uri":["\\u00e9"]}]',
        '[{"uri":["\\ud800"]}]',
        '[{"\\ud800":1}]',
        '[{"hash":NaN}]',
        '[{"hash":Infinity}]',
        '[{"hash":' + "9" * 5000 + "}]",
        "[" * 5000,
        "[" * 5000 + "]" * 5000,
        '[{"hash":"1"}]x',
        '[{"hash":"1"',
    ],
)
def test_a_json_that_envoy_does_not_write_is_refused(value: str) -> None:
    with pytest.raises(XfccError) as refused:
        parse(value)
    assert str(refused.value).isprintable()


def test_sixteen_hops_are_a_mesh_and_seventeen_an_attack() -> None:
    assert MAX_ELEMENTS == 16
    assert len(parse(",".join(["Hash=1"] * 16))) == 16
    assert len(parse(json.dumps([{"hash": "1"}] * 16))) == 16
    with pytest.raises(XfccError, match="more than 16"):
        parse(",".join(["Hash=1"] * 17))
    with pytest.raises(XfccError, match="more than 16"):
        parse(json.dumps([{"hash": "1"}] * 17))


def test_a_header_longer_than_envoys_own_limit_is_not_even_read() -> None:
    cert = "A" * (MAX_LENGTH - len('Cert=""'))

    assert parse(f'Cert="{cert}"')[0].cert == cert
    with pytest.raises(XfccError, match="longer"):
        parse(f'Cert="{cert}A"')


@pytest.mark.parametrize("part", ['"', ";", ",", "=", "\\", "a=", "a=b;", "a=b,", "[", '{"', 'Subject="\\'])
def test_the_work_is_linear_in_the_header(part: str) -> None:
    value = (part * MAX_LENGTH)[:MAX_LENGTH]
    started = time.perf_counter()

    for wrapped in (value, f'Subject="{value[:-20]}"', f"[{value[:-20]}]"):
        with contextlib.suppress(XfccError):
            parse(wrapped)

    assert time.perf_counter() - started < 2  # quadratic work would take minutes


def _value(case: dict[str, Any]) -> str:
    if "xfcc_repeat" in case:
        return "".join(text * count for text, count in case["xfcc_repeat"])
    value = case["xfcc"]
    return ",".join(value) if isinstance(value, list) else value


def _fields(element: dict[str, list[str]]) -> dict[str, Any]:
    repeatable = {"By": "by", "URI": "uris", "DNS": "dns"}
    return {
        repeatable.get(key, key.lower()): tuple(values) if key in repeatable else values[0].replace("\\,", ",")
        for key, values in element.items()
    }


def test_the_published_elements_read_as_published_but_without_the_backslash_of_an_escape() -> None:
    compared = 0
    for case in vectors.json_file("vectors/xfcc/xfcc_cases.json")["cases"]:
        if "elements" not in case:
            continue
        expected = [ClientCert(**_fields(element)) for element in case["elements"]]
        assert list(parse(_value(case))) == expected, case["name"]
        compared += 1
    assert compared > 5


def test_a_value_is_read_the_same_each_time_and_what_is_refused_is_refused_each_time() -> None:
    for _ in range(3):
        assert parse("URI=spiffe://td/ns/a/sa/b")[0].uris == ("spiffe://td/ns/a/sa/b",)
        with pytest.raises(XfccError):
            parse("URI=spiffe://td/ns/a/sa/b;")


def test_no_more_values_are_remembered_than_there_is_room_for_and_no_long_ones() -> None:
    for number in range(3000):
        parse(f"URI=spiffe://td/ns/a/sa/{number}")
    before = xfcc._remembered.cache_info()
    long = f"URI=spiffe://td/ns/a/sa/{'b' * 4096}"

    assert parse(long)[0].uris == (long.removeprefix("URI="),)
    assert before.currsize == before.maxsize == 1024
    assert xfcc._remembered.cache_info() == before
