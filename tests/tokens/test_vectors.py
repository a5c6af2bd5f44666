"""Published and adversarial vectors, judged by the whole of `countersign.tokens`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from countersign.core.decision import Reason
from countersign.core.posture import Posture
from countersign.tokens.jose import TokenError, decode_base64url, parse
from countersign.tokens.keys import KeySet, KeySetError
from countersign.tokens.verify import verify
from cryptography.hazmat.primitives.serialization import load_der_public_key
from jwt.algorithms import get_default_algorithms

from tests.tokens.material import (
    AUDIENCE,
    CLAIMS,
    NOW,
    cases,
    encode,
    jwk,
    key_set,
    rule,
    segment,
    sign,
    signature,
    vectors,
)

PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi"})


def key_verifies(token: str, jwks: Mapping[str, Any]) -> bool:
    """Whether the signature verifies, the payload being anything: it is parsed as if it were an empty claims set."""
    segments = token.split(".")
    if len(segments) != 3:
        return False
    try:
        decode_base64url(segments[1])
        parsed = parse(f"{segments[0]}.{segment({})}.{segments[2]}")
        parsed = replace(parsed, signing_input=f"{segments[0]}.{segments[1]}".encode())
        verify(parsed, rule(""), KeySet.parse(json.dumps(jwks)), NOW, Posture.ISTIO)
    except (TokenError, KeySetError, ValueError):
        return False
    return True


def public(key: Mapping[str, Any]) -> dict[str, Any]:
    """The public half of a JWK; an issuer would publish ``sign`` as ``verify``."""
    members = {name: value for name, value in key.items() if name not in PRIVATE}
    if "sign" in members.get("key_ops", ()):
        members["key_ops"] = ["verify"]
    return members


def wycheproof(file: str) -> list[tuple[int, str, bool, Mapping[str, Any]]]:
    """Each JWS of a file: its number, the token, whether it is valid, and the key set."""
    rows: list[tuple[int, str, bool, Mapping[str, Any]]] = []
    for group in cases(f"wycheproof/{file}", "testGroups"):
        key = group.get("public") or group["private"]
        jwks = {"keys": [public(member) for member in key.get("keys", [key])]}
        for test in group["tests"]:
            if "jws" in test:
                text = test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"])
                rows.append((test["tcId"], text, test["result"] == "valid", jwks))
    return rows


HMAC = {1, 348, 352, 357, 358, 359, 372, 373, 376, 377}  # valid upstream, and 372, 373 with a `?` inside
OTHER_ALGORITHM = {346, 350, 347, 351}  # PS384 under a key for PS256; a key for "ES521", which is no algorithm

# file: how many JWS it has, and which of them are valid upstream and refused here. None is taken wrongly.
WYCHEPROOF = {
    "json_web_signature_test.json": (401, HMAC | OTHER_ALGORITHM),
    "json_web_key_test.json": (26, {2, 13, 14, 15}),  # HMAC
    "json_web_crypto_test.json": (49, {1, 48}),  # HMAC
}


@pytest.mark.parametrize("file", WYCHEPROOF)
def test_agrees_with_wycheproof_but_for_the_differences_of_the_design(file: str) -> None:
    rows = wycheproof(file)
    refused = {number for number, text, valid, jwks in rows if valid and not key_verifies(text, jwks)}
    taken = {number for number, text, valid, jwks in rows if not valid and key_verifies(text, jwks)}

    assert taken == set()
    assert (len(rows), refused) == WYCHEPROOF[file]


def test_no_jwe_is_a_token() -> None:
    """Beside the file of its own, which test_jose reads."""
    found = [
        test["jwe"] if isinstance(test["jwe"], str) else json.dumps(test["jwe"])
        for group in cases("wycheproof/json_web_crypto_test.json", "testGroups")
        for test in group["tests"]
        if "jwe" in test
    ]
    for text in found:
        with pytest.raises(TokenError):
            parse(text)

    assert len(found) == 34


def test_refuses_all_that_the_library_alone_would_take() -> None:
    """What was measured of PyJWT beside the published results: in each of these cases we refuse."""
    findings = vectors("jwt/library_baseline_findings.json")["wycheproof"]
    differences = {
        (file, number) for file, found in findings.items() for each in found["differences"] for number in each["tcId"]
    }
    taken = {
        (file, number) for file in findings for number, text, _, jwks in wycheproof(file) if key_verifies(text, jwks)
    }

    assert len(differences) == 22
    assert not differences & taken


def test_agrees_with_the_examples_of_the_rfcs() -> None:
    """RFC 7515 A, 8037 A.4: HMAC, `none` and crit are refused, every public key verifies its signature."""
    verified = [
        case["id"]
        for case in cases("rfc/rfc_examples.json", "jws_cases")
        if case.get("jwk") and key_verifies(case["jws"], {"keys": [public(case["jwk"])]})
    ]

    assert verified == ["RFC7515-A.2", "RFC7515-A.3", "RFC7515-A.4", "RFC8037-A.4"]


KEYS = key_set(jwk("RS256", kid="rs"), jwk("ES256", kid="es"), jwk("EdDSA", kid="ed"))
RULE = rule(audiences=(AUDIENCE,))

# Rows of our own corpus that the design, following Envoy and Istio, decides otherwise than the row does.
DESIGN = {
    "kid empty": "accept",  # jwt_verify_lib: an empty kid is no kid
    "exp = now-60": "accept",  # Envoy: expired only when now > exp + leeway
    "aud trailing slash": "accept",  # the folding of Envoy and Istio is on
    "aud https://svc": "accept",
    "NUL in sub": "accept",  # a string of a policy never equals it
    "cnf.jkt": "accept",  # Istio knows no sender-constrained tokens
    "lifetime > max_lifetime": "accept",  # Istio has no such setting
    "iat > exp": "accept",
    "sub 10 KiB": "accept",  # the row has an ordinary sub; the bound is that of the token
    "SPIFFE JWT-SVID: sub not a SPIFFE ID": "accept",  # Istio has no issuers of that kind
    "JWT-SVID: trust domain of sub differs from the bundle's": "accept",
}


def outcome(token: str) -> str:
    try:
        verify(parse(token), RULE, KEYS, NOW, Posture.STRICT)
    except TokenError:
        return "reject"
    return "accept"


def expectation(row: Mapping[str, Any]) -> str:
    expected = DESIGN.get(row["name"], row["expect"])
    return "accept" if expected.startswith("accept") else "reject"


def rows_with(member: str) -> list[Mapping[str, Any]]:
    return [row for row in cases("jwt/jwt_adversarial_cases.json", "cases") if member in row]


def test_agrees_with_the_adversarial_headers() -> None:
    rows = rows_with("header")
    for row in rows:
        token = sign(row["claims"], header=row["header"])
        assert outcome(token) == expectation(row), row["name"]
        if row.get("signature") == "empty":
            assert outcome(token.rpartition(".")[0] + ".") == "reject", row["name"]
    assert len(rows) == 79


def test_agrees_with_the_adversarial_claims() -> None:
    rows = rows_with("claims_patch")
    for row in rows:
        claims = {**CLAIMS, **row["claims_patch"]}
        present = {name: value for name, value in claims.items() if value != "<absent>"}
        assert outcome(sign(present, header={"alg": "RS256", "kid": "rs"})) == expectation(row), row["name"]
    assert len(rows) == 75


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def with_claims(more: bytes) -> bytes:
    """A claims set that is fine but for what is added."""
    return json.dumps(dict(CLAIMS)).encode()[:-1] + b"," + more + b"}"


# Rows whose payload is only described.
DESCRIBED: Mapping[str, bytes] = {
    "duplicate exp": with_claims(b'"exp":%d' % (NOW + 600)),
    "5,000-digit int": with_claims(b'"x":' + b"9" * 5000),
    "4,000-digit exp": b'{"iss":"https://idp.example","aud":"svc","exp":' + b"9" * 4000 + b"}",
    "depth 100,000": b"[" * 100_000,
    "depth 33": with_claims(b'"x":' + deep(32)),
    "UTF-16 payload": json.dumps(dict(CLAIMS)).encode("utf-16"),
    "UTF-32 payload": json.dumps(dict(CLAIMS)).encode("utf-32"),
    "UTF-8 BOM": b"\xef\xbb\xbf" + json.dumps(dict(CLAIMS)).encode(),
    "trailing data": json.dumps(dict(CLAIMS)).encode() + b"x",
    "1,000,000 small keys": with_claims(b",".join(b'"%d":1' % number for number in range(1_000_000))),
    "hash-collision keys": with_claims(b",".join(b'"%d":1' % (number * (2**61 - 1)) for number in range(300))),
}


def test_agrees_with_the_adversarial_payloads() -> None:
    rows = rows_with("raw_payload")
    for row in rows:
        payload = DESCRIBED.get(row["name"], row["raw_payload"].encode())
        if payload.startswith(b'{"') and row["name"] not in DESCRIBED:  # fine but for what the row puts into it
            payload = json.dumps(dict(CLAIMS)).encode()[:-1] + b"," + payload[1:]
        if expectation(row) == "accept":
            payload = payload.replace(b'"sub": "alice", ', b"")
        assert outcome(sign(payload, header={"alg": "RS256", "kid": "rs"})) == expectation(row), row["name"]
    good = sign(with_claims(b'"x":' + deep(31)), header={"alg": "RS256", "kid": "rs"})
    assert outcome(good) == "accept"  # the twin of depth 33
    assert len(rows) == 32


def test_agrees_with_the_adversarial_compact_forms() -> None:
    good = sign(header={"alg": "RS256", "kid": "rs"})
    head, payload, tail = good.split(".")
    written = {
        "space before": f" {good}",
        "newline in signature": f"{head}.{payload}.{tail[:10]}\n{tail[10:]}",
        "standard base64 alphabet": good.replace("-", "+").replace("_", "/"),
        "non-zero trailing bits": good[:-1] + chr(ord(good[-1]) + 1),
        "non-zero trailing bits in header": f"{head[:-1]}{chr(ord(head[-1]) + 1)}.{payload}.{tail}",
        "60,000 dots": "." * 60_000,
        "token of 8,193 bytes": sign({**CLAIMS, "x": "x" * 6000}, header={"alg": "RS256", "kid": "rs"}),
        "token of 60 KiB": sign({**CLAIMS, "x": "x" * 45_000}, header={"alg": "RS256", "kid": "rs"}),
        "JSON serialisation": json.dumps({"protected": head, "payload": payload, "signature": tail}),
        "surrogate": f"{good}\ud800",
        "NUL": f"{good}\0",
    }
    assert outcome(good) == "accept"
    assert len(rows_with("raw")) == 25
    for row in rows_with("raw"):
        if row["name"] in ("signature truncated", "signature bit flips"):
            continue  # test_verify
        raw = row["raw"].replace("{H}", head).replace("{P}", payload).replace("{S}", tail)
        assert outcome(written.get(row["name"], raw)) == expectation(row) == "reject", row["name"]


def test_no_hmac_over_any_form_of_a_public_key_is_taken() -> None:
    """RFC 8725 2.1. The secret does not matter: HMAC is refused before any key is looked at."""
    for algorithm in ("HS256", "HS384", "HS512"):
        text = f"{segment({'alg': algorithm, 'kid': 'rs'})}.{segment(dict(CLAIMS))}"
        assert outcome(f"{text}.{encode(signature(text, 'RS256')[:32])}") == "reject"


SIGNATURES = {
    "ecdsa_secp256r1_sha256_p1363_test.json": ("ES256", 262),
    "ecdsa_secp384r1_sha384_p1363_test.json": ("ES384", 280),
    "ecdsa_secp521r1_sha512_p1363_test.json": ("ES512", 318),
    "ed25519_test.json": ("EdDSA", 151),
    "rsa_signature_2048_sha256_test.json": ("RS256", 259),
    "rsa_signature_2048_sha384_test.json": ("RS384", 258),
    "rsa_signature_2048_sha512_test.json": ("RS512", 259),
    "rsa_signature_3072_sha256_test.json": ("RS256", 259),
    "rsa_pss_2048_sha256_mgf1_32_test.json": ("PS256", 108),
    "rsa_pss_2048_sha384_mgf1_48_test.json": ("PS384", 141),
    "rsa_pss_3072_sha256_mgf1_32_test.json": ("PS256", 108),
    "rsa_pss_4096_sha512_mgf1_64_test.json": ("PS512", 179),
}


def test_ed448_is_no_key_of_ours() -> None:
    """RFC 8037 has it; Envoy and Istio do not, and no signature with it verifies."""
    carrier = parse(sign(dict(CLAIMS), header={"alg": "EdDSA"}))
    judged = 0
    for group in cases("wycheproof/ed448_test.json", "testGroups"):
        keys = key_set(group["publicKeyJwk"])
        assert (keys.keys, [each.why for each in keys.rejected]) == ((), ["`crv` is not Ed25519"])
        for test in group["tests"]:
            judged += 1
            token = replace(carrier, signing_input=bytes.fromhex(test["msg"]), signature=bytes.fromhex(test["sig"]))
            with pytest.raises(TokenError) as caught:
                verify(token, RULE, keys, NOW, Posture.STRICT)
            assert caught.value.reason is Reason.KEYS_UNAVAILABLE

    assert judged == 87


def test_a_salt_of_another_length_than_the_digests_is_refused() -> None:
    """RFC 7518 3.5. The vectors sign without salt, and call the one signature with it invalid."""
    carrier = parse(sign(dict(CLAIMS), header={"alg": "PS256"}))
    verified, judged = [], 0
    for group in cases("wycheproof/rsa_pss_2048_sha256_mgf1_0_test.json", "testGroups"):
        keys = key_set(group_key(group, "PS256"))
        for test in group["tests"]:
            judged += 1
            token = replace(carrier, signing_input=bytes.fromhex(test["msg"]), signature=bytes.fromhex(test["sig"]))
            try:
                verify(token, RULE, keys, NOW, Posture.STRICT)
            except TokenError as error:
                assert error.reason is Reason.TOKEN_SIGNATURE  # noqa: PT017 (the other tokens verify)
            else:
                verified.append(test["comment"])

    assert (judged, verified) == (103, ["s_len changed to 32"])


@pytest.mark.parametrize("file", SIGNATURES)
def test_agrees_with_the_signature_vectors_of_wycheproof(file: str) -> None:
    """The messages are no tokens, so a token is made to carry the message as its signing input."""
    algorithm, count = SIGNATURES[file]
    carrier = parse(sign(dict(CLAIMS), header={"alg": algorithm}))
    judged = 0
    for group in cases(f"wycheproof/{file}", "testGroups"):
        keys = key_set(group_key(group, algorithm))
        for test in group["tests"]:
            token = replace(carrier, signing_input=bytes.fromhex(test["msg"]), signature=bytes.fromhex(test["sig"]))
            try:
                verify(token, RULE, keys, NOW, Posture.STRICT)
                verified = True
            except TokenError as error:
                verified = error.reason is not Reason.TOKEN_SIGNATURE  # any other would be a fault of this test
            judged += 1
            if test["result"] != "acceptable":
                assert verified is (test["result"] == "valid"), test["tcId"]

    assert judged == count


def group_key(group: Mapping[str, Any], algorithm: str) -> Any:
    """The public key of a group as a JWK."""
    public_key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    plain = get_default_algorithms()[algorithm].to_jwk(public_key, as_dict=True)
    return {name: value for name, value in plain.items() if name != "key_ops"}
