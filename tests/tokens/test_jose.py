"""The compact form is parsed strictly, with Envoy's statuses, before any cryptography."""

import base64
import contextlib
import json
import time
from typing import Any

import pytest
from countersign.core.decision import Reason
from countersign.tokens.jose import (
    ALGORITHMS,
    MAX_LENGTH,
    Base64Error,
    Head,
    TokenError,
    UnverifiedToken,
    decode_base64url,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.material import CLAIMS, cases, encode, json_test_suite, segment, vectors

HEADER = {"alg": "RS256", "kid": "k"}
FORM = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"


def compact(header: Any = None, payload: Any = None, signature: str = "AAAA") -> str:
    """A token of these parts; octets are taken as they are."""
    parts = (HEADER if header is None else header, CLAIMS if payload is None else payload)
    return ".".join([*(encode(part) if isinstance(part, bytes) else segment(part) for part in parts), signature])


def refusal(token: str) -> tuple[Reason, str]:
    with pytest.raises(TokenError) as caught:
        parse(token)
    return caught.value.reason, caught.value.text


def test_parses_header_payload_and_signature() -> None:
    token = compact()

    parsed = parse(token)
    assert parsed == UnverifiedToken(
        head=Head(token.split(".")[0].encode(), HEADER, "RS256", "k"),
        payload=dict(CLAIMS),
        payload_json=json.dumps(dict(CLAIMS)).encode(),
        signing_input=token.rpartition(".")[0].encode(),
        signature=b"\0\0\0",
    )
    assert parsed.payload_segment == token.split(".")[1]


def test_a_header_that_is_known_is_not_read_again() -> None:
    first, second = compact(payload={"jti": "1"}), compact(payload={"jti": "2"})
    head = parse(first).head

    assert parse(second, {head.segment: head}).head is head
    assert parse(second, {head.segment: head}) == parse(second)
    assert parse(second, {b"other": head}).head is not head


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b", "a.b.c.d", "a.b.c.d.e", ".a.b.c", "a.b.c.", "a..b", ".a.b", "a.b.", "{}", "." * 6000],
)
def test_refuses_anything_but_three_sections(token: str) -> None:
    assert refusal(token) == (Reason.TOKEN_MALFORMED, FORM)


def test_refuses_a_token_that_is_too_long_before_any_other_work() -> None:
    padding = MAX_LENGTH - len(compact(payload={"p": ""}))
    claims = {"p": "x" * (padding * 3 // 4)}

    assert parse(compact(payload=claims)).payload == claims
    assert refusal("a" * (MAX_LENGTH + 1)) == (Reason.TOKEN_MALFORMED, "Jwt is longer than 8192 characters")
    assert refusal("." * 60_000)[1] == "Jwt is longer than 8192 characters"


def test_what_is_no_token_costs_next_to_nothing() -> None:
    def seconds(text: str) -> float:
        start = time.perf_counter()
        refusal(text)
        return time.perf_counter() - start

    for text in ("." * 60_000, "a" * 60_000, "." * MAX_LENGTH, f"{'a' * 8000}.b.c"):
        assert min(seconds(text) for _ in range(20)) < 0.001


@pytest.mark.parametrize("part", ["header", "payload", "signature"])
@pytest.mark.parametrize("spoil", ["=", "==", "A", " ", "\n", "+", "/", "\0", "é", "\ud800", "*"])
def test_refuses_what_is_not_canonical_base64url(part: str, spoil: str) -> None:
    """One token, one spelling. jwt_verify_lib tolerates padding; we do not (RFC 7515 2)."""
    segments = [encode(b'{"alg":"RS256","kid":"abc"}'), encode(b'{"iss":"a"} '), "AAAA"]
    at = ["header", "payload", "signature"].index(part)
    assert len(segments[at]) % 4 == 0
    parse(".".join(segments))

    segments[at] += spoil

    assert refusal(".".join(segments)) == (Reason.TOKEN_MALFORMED, f"Jwt {part} is an invalid Base64url encoded")


@given(st.binary())
def test_base64url_has_one_form_for_each_text_of_octets(octets: bytes) -> None:
    text = encode(octets)

    assert decode_base64url(text) == octets
    for other in (text + "=", text + "\n", text[:-1] + chr(ord(text[-1:] or "A") + 1)):
        with contextlib.suppress(Base64Error):
            assert decode_base64url(other) != octets


@given(st.text("AZaz09-_+/=Qgw8\n \xe9\ud800*", max_size=9) | st.binary(max_size=9).map(encode))
def test_base64url_is_what_encoding_gives_back(text: str) -> None:
    """The definition: there are octets whose one form is this text."""
    try:
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        canonical = encode(octets) == text
    except ValueError:
        octets, canonical = b"", False
    try:
        decoded = decode_base64url(text)
    except Base64Error:
        assert not canonical
    else:
        assert canonical
        assert decoded == octets


def test_refuses_stray_bits_after_the_last_octet() -> None:
    assert decode_base64url("AA") == b"\0"
    with pytest.raises(Base64Error, match="not canonical"):
        decode_base64url("AB")


@pytest.mark.parametrize("part", ["header", "payload"])
@pytest.mark.parametrize(
    "octets",
    [
        b"[1]",
        b'"x"',
        b"null",
        b" ",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1}x',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        b'{"sub":"\xff"}',
        rb'{"sub":"\ud800"}',
        b"[" * 5000,
        b'{"x":' + b"9" * 5000 + b"}",
        b'{"a":' * 33 + b"1" + b"}" * 33,
    ],
)
def test_refuses_what_is_not_a_json_object_with_one_reading(part: str, octets: bytes) -> None:
    token = compact(header=octets) if part == "header" else compact(payload=octets)

    assert refusal(token) == (Reason.TOKEN_MALFORMED, f"Jwt {part} is an invalid JSON")


@pytest.mark.parametrize("algorithm", [None, 5, True, ["RS256"], {}])
def test_refuses_an_algorithm_that_is_no_string(algorithm: object) -> None:
    expected = (Reason.TOKEN_ALGORITHM, "Jwt header [alg] field is required and must be a string")

    assert refusal(compact(header={"alg": algorithm})) == expected
    assert refusal(compact(header={"kid": "k"})) == expected


@pytest.mark.parametrize(
    "algorithm",
    [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        " none",
        "RS999",
        "ES256K",
        "dir",
        "RSA-OAEP",
        "Ed25519",
        "ESP256",
        "HS256",
        "HS384",
        "HS512",
        "rs256",
        "RS256 ",
        "RS256\0",
        "\uff32S256",
    ],
)
def test_refuses_every_algorithm_but_those_of_public_keys(algorithm: str) -> None:
    assert refusal(compact(header={"alg": algorithm})) == (
        Reason.TOKEN_ALGORITHM,
        "Jwt header [alg] is not supported",
    )


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_takes_the_algorithms_of_public_keys(algorithm: str) -> None:
    assert parse(compact(header={"alg": algorithm})).head.algorithm == algorithm


@pytest.mark.parametrize("kid", [None, 5, ["k"], {}])
def test_refuses_a_kid_that_is_no_string(kid: object) -> None:
    assert refusal(compact(header={"alg": "RS256", "kid": kid})) == (
        Reason.TOKEN_MALFORMED,
        "Jwt header [kid] field is not a string",
    )
    assert parse(compact(header={"alg": "RS256"})).head.kid == ""


@pytest.mark.parametrize("claim", ["iss", "sub", "jti"])
@pytest.mark.parametrize("value", [None, 1, True, [], ["a"], {}])
def test_refuses_a_name_claim_that_is_no_string(claim: str, value: object) -> None:
    assert refusal(compact(payload={claim: value})) == (
        Reason.TOKEN_MALFORMED,
        f"Jwt payload [{claim}] field is not a string",
    )
    assert parse(compact(payload={claim: "x"})).payload == {claim: "x"}


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
@pytest.mark.parametrize("value", [None, True, "1800000600", " 1800000600 ", "1_8", "\uff11\uff18", [1], {}])
def test_refuses_a_date_that_is_no_number(claim: str, value: object) -> None:
    assert refusal(compact(payload={claim: value}))[1] == f"Jwt payload [{claim}] field is not an integer"


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
@pytest.mark.parametrize("value", [-1, -0.5, 2.001e206, 2.0**64])
def test_refuses_a_date_out_of_range(claim: str, value: float) -> None:
    assert refusal(compact(payload={claim: value})) == (
        Reason.TOKEN_MALFORMED,
        f"Jwt payload [{claim}] field is not a positive 64 bit integer",
    )
    assert parse(compact(payload={claim: 1234.5678})).payload == {claim: 1234.5678}


@pytest.mark.parametrize("audience", [None, 5, ["svc", 1], {"svc": 1}, [["svc"]]])
def test_refuses_an_audience_of_another_type(audience: object) -> None:
    assert refusal(compact(payload={"aud": audience})) == (
        Reason.TOKEN_MALFORMED,
        "Jwt payload [aud] field is not a string or string list",
    )
    for good in ("svc", "", [], ["a", "b"]):
        parse(compact(payload={"aud": good}))


def test_reports_the_first_fault_in_the_order_of_envoy() -> None:
    faults: list[tuple[Any, Any, str, str]] = [
        (b"x", b"x", "A", "header is an invalid JSON"),
        ({"alg": "none", "kid": 1}, b"x", "A", "[alg] is not supported"),
        ({"alg": "RS256", "kid": 1}, b"x", "A", "[kid] field"),
        (HEADER, b"x", "A", "payload is an invalid JSON"),
        (HEADER, {"aud": 1, "jti": 1, "exp": "", "sub": 1, "iss": 1}, "A", "[iss]"),
        (HEADER, {"aud": 1, "jti": 1, "exp": "", "sub": 1}, "A", "[sub]"),
        (HEADER, {"aud": 1, "jti": 1, "exp": "", "nbf": "", "iat": ""}, "A", "[iat]"),
        (HEADER, {"aud": 1, "jti": 1, "exp": ""}, "A", "[exp]"),
        (HEADER, {"aud": 1, "jti": 1}, "A", "[jti]"),
        (HEADER, {"aud": 1}, "A", "[aud]"),
        (HEADER, {}, "A", "signature is an invalid Base64url"),
    ]
    for header, payload, signature, text in faults:
        assert text in refusal(compact(header, payload, signature))[1]


@given(st.text() | st.text("ABCabc012_-.=", max_size=60))
def test_returns_or_raises_its_own_error(token: str) -> None:
    with contextlib.suppress(TokenError):
        parse(token)


@given(st.lists(st.binary(max_size=40), min_size=3, max_size=3), st.integers(0, 2))
def test_returns_or_raises_its_own_error_for_any_octets(parts: list[bytes], good: int) -> None:
    segments = [encode(part) for part in parts]
    segments[:good] = [segment(HEADER), segment(CLAIMS)][:good]
    with contextlib.suppress(TokenError):
        parse(".".join(segments))


def test_no_message_repeats_the_token() -> None:
    secret = "5ecret"
    for token in (compact(payload={"sub": [secret]}), compact(header={"alg": secret}), secret, f"{secret}.a.b"):
        assert secret not in refusal(token)[1]


def test_every_json_test_file_that_must_fail_fails_as_a_payload() -> None:
    for name, octets in json_test_suite():
        if len(octets) < 6000 and (name.startswith("n_") or not octets.lstrip().startswith(b"{")):
            text = refusal(compact(payload=octets))[1]
            assert text == ("Jwt payload is an invalid JSON" if octets else FORM), name


def test_no_jwe_of_wycheproof_is_a_token() -> None:
    """139 JWE vectors: nothing is decrypted, decompressed or taken for a JWT."""
    tokens = [
        test["jwe"]
        for group in cases("wycheproof/json_web_encryption_test.json", "testGroups")
        for test in group["tests"]
    ]

    assert len(tokens) == 139
    for token in tokens:
        assert refusal(token)[0] in (Reason.TOKEN_MALFORMED, Reason.TOKEN_ALGORITHM)


def test_no_flattened_or_general_json_form_is_a_token() -> None:
    for case in vectors("rfc/rfc7520_cookbook/jws_4_8.multiple_signatures.json")["output"].values():
        assert refusal(json.dumps(case))[0] is Reason.TOKEN_MALFORMED
