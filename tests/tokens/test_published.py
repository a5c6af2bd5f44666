"""Examples that RFCs, libraries and SPIFFE have published: which of them are tokens and key sets for us."""

import json
from typing import Any

import pytest
from countersign.tokens.jose import TokenError, parse
from countersign.tokens.keys import KeySet, KeySetError

from tests.support.vectors import locate, text
from tests.tokens.material import cases, key_set, vectors
from tests.tokens.test_vectors import key_verifies, public

# File of RFC 7520's cookbook: its compact form is there and verifies; None: it has none.
COOKBOOK = {
    "jws_4_1.rsa_v15_signature.json": True,
    "jws_4_2.rsa-pss_signature.json": True,
    "jws_4_3.ecdsa_signature.json": True,
    "jws_4_4.hmac-sha2_integrity_protection.json": False,
    "jws_4_5.signature_with_detached_content.json": False,
    "jws_4_6.protecting_specific_header_fields.json": None,
    "jws_4_7.protecting_content_only.json": None,
    "jws_4_8.multiple_signatures.json": None,
    "rfc7797_4.2.hmac-sha2_b64_false.json": None,
    "curve25519_jws.json": True,
}


@pytest.mark.parametrize("file", COOKBOOK)
def test_agrees_with_the_cookbook_of_rfc_7520(file: str) -> None:
    """HMAC and detached content are refused; so is everything that is not the compact form."""
    case = vectors(f"rfc/rfc7520_cookbook/{file}")
    output, expected = case["output"], COOKBOOK[file]
    if expected is not None:
        key = {name: value for name, value in public(case["input"]["key"]).items() if name != "alg"}
        assert key_verifies(output["compact"], {"keys": [key]}) is expected
    assert ("compact" in output) is (expected is not None)
    for form in ("json", "json_flat"):
        if form in output:
            with pytest.raises(TokenError):
                parse(json.dumps(output[form]))


def test_takes_the_token_inside_a_nested_one_and_not_the_nested_one() -> None:
    case = vectors("rfc/rfc7520_cookbook/6.nesting_signatures_and_encryption.json")
    jwks = {"keys": [public(case["sign"]["input"]["key"])]}

    assert key_verifies(case["sign"]["output"]["compact"], jwks)
    assert not key_verifies(case["encrypt"]["output"]["compact"], jwks)
    with pytest.raises(TokenError):
        parse(case["encrypt"]["output"]["compact"])


def cookbook_key(file: str) -> Any:
    return vectors(f"rfc/rfc7520_cookbook/{file}")


EC, RSA = "jwk_3_1.ec_public_key.json", "jwk_3_3.rsa_public_key.json"


def test_agrees_with_the_tables_of_joserfc() -> None:
    jwks = {"keys": [cookbook_key(EC), cookbook_key(RSA)]}
    tests = cases("rfc/joserfc_jws_rfc7520.json", "tests")

    assert len(key_set(cookbook_key(EC), cookbook_key(RSA)).keys) == 2
    assert [test["name"] for test in tests if key_verifies(test["compact"], jwks)] == [
        *("RSA v1.5 Signature", "RSA-PSS Signature", "ECDSA Signature")
    ]
    assert [test["name"] for test in tests if not key_verifies(test["compact"], jwks)] == [
        "HMAC-SHA2 Integrity Protection"
    ]
    unencoded = cases("rfc/joserfc_jws_rfc7797.json", "tests")
    assert [key_verifies(test["compact"], jwks) for test in unencoded] == [False] * 4
    for test in (*tests, *unencoded):
        with pytest.raises(TokenError):
            parse(json.dumps(test["flattened_json"]))


NOT_SIGNING = "`use` is not sig"
PRIVATE = "has private or symmetric members"

# File of the SPIFFE libraries: usable keys, and why the others are none. What a SPIFFE bundle says of a key (`use` of
# x509-svid or jwt-svid) is not what a JWKS says of it: a bundle's keys never verify a token by `jwksUri`.
SPIFFE: dict[str, tuple[int, list[str]]] = {
    "go_jwks_missing_kid.json": (2, []),
    "go_jwks_valid_1.json": (1, []),
    "go_jwks_valid_2.json": (2, []),
    "go_spiffebundle_missing_kid.json": (0, [NOT_SIGNING] * 2),
    "go_spiffebundle_multiple_x509.json": (0, [NOT_SIGNING] * 2),
    "go_spiffebundle_valid_1.json": (0, [NOT_SIGNING] * 2),
    "go_spiffebundle_valid_2.json": (0, [NOT_SIGNING] * 7),
    "go_spiffebundle_valid_with_wit.json": (0, [NOT_SIGNING] * 5),
    "java_jwks_invalid_keytype.json": (0, ["`x` is not 32 octets"]),
    "java_jwks_missing_kid.json": (2, []),
    "java_jwks_valid_EC_1.json": (1, []),
    "java_jwks_valid_RSA_1.json": (0, [PRIVATE]),
    "java_jwks_valid_RSA_EC.json": (1, [PRIVATE]),
}


@pytest.mark.parametrize("file", SPIFFE)
def test_the_key_sets_of_the_spiffe_libraries(file: str) -> None:
    found = KeySet.parse(text(f"vectors/spiffe/jwks/{file}"))

    assert (len(found.keys), [each.why for each in found.rejected]) == SPIFFE[file]


def test_a_spiffe_bundle_without_keys_is_no_key_set() -> None:
    files = {file.name for file in locate("vectors/spiffe/jwks").glob("*.json")}
    assert files - set(SPIFFE) == {"go_spiffebundle_no_keys.json"}
    with pytest.raises(KeySetError):
        KeySet.parse(text("vectors/spiffe/jwks/go_spiffebundle_no_keys.json"))
