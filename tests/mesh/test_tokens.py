"""The scenario's tokens are what their descriptions say; PyJWT, which signed nothing here, reads them."""

import base64
import datetime as dt
from pathlib import Path

import jwt
import pytest
from countersign.mesh.certificates import write_certificates
from countersign.mesh.issuer import ALGORITHMS, Issuer
from countersign.mesh.process import MeshError
from countersign.mesh.scenario import AUDIENCE, HOUR, ISSUER, Signature, Token
from countersign.mesh.tokens import mint
from cryptography import x509
from cryptography.hazmat.primitives import hashes

NOW = 1_795_000_000.0


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer(ISSUER)


def _verify(issuer: Issuer, token: str, algorithm: str) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_dict(issuer.jwks())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(
        token, key, algorithms=[algorithm], audience=AUDIENCE, options={"verify_exp": False, "verify_iat": False}
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_genuine_token_verifies_and_says_what_was_asked(issuer: Issuer, algorithm: str) -> None:
    token = mint(issuer, Token(label="alice", algorithm=algorithm, claims={"sub": "alice", "groups": ["staff"]}), NOW)

    assert _verify(issuer, token, algorithm) == {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "groups": ["staff"], "iat": int(NOW), "exp": int(NOW + HOUR),
    }  # fmt: skip


def test_a_claim_of_the_description_wins(issuer: Issuer) -> None:
    token = mint(issuer, Token(label="other", claims={"iss": "https://elsewhere.example", "aud": AUDIENCE}), NOW)

    assert _verify(issuer, token, "ES256")["iss"] == "https://elsewhere.example"


def test_an_expired_token_has_expired(issuer: Issuer) -> None:
    token = mint(issuer, Token(label="old", lifetime=-HOUR), NOW)

    assert _verify(issuer, token, "ES256")["exp"] == int(NOW - HOUR)


def test_a_forged_token_names_a_published_key_and_does_not_verify(issuer: Issuer) -> None:
    token = mint(issuer, Token(label="forged", algorithm="RS256", signature=Signature.FORGED), NOW)

    with pytest.raises(jwt.InvalidSignatureError):
        _verify(issuer, token, "RS256")


def test_an_unsigned_token_has_no_signature(issuer: Issuer) -> None:
    token = mint(issuer, Token(label="none", signature=Signature.NONE), NOW)

    assert token.endswith(".")
    assert jwt.get_unverified_header(token)["alg"] == "none"


def test_a_confused_token_says_hs256_under_the_id_of_an_rsa_key(issuer: Issuer) -> None:
    header = jwt.get_unverified_header(mint(issuer, Token(label="confused", signature=Signature.CONFUSED), NOW))

    assert header["alg"] == "HS256"
    assert header["kid"] == issuer.kid("RS256")


def test_a_confirmed_token_names_the_certificate_of_its_workload(issuer: Issuer, tmp_path: Path) -> None:
    write_certificates(tmp_path, dt.datetime.now(dt.UTC))
    certificate = x509.load_pem_x509_certificate((tmp_path / "sleep" / "tls.crt").read_bytes())
    token = mint(issuer, Token(label="cnf", confirms="sleep"), NOW, tmp_path)
    (said,) = _verify(issuer, token, "ES256")["cnf"].values()  # type: ignore[attr-defined]  # an object

    assert base64.urlsafe_b64decode(f"{said}=") == certificate.fingerprint(hashes.SHA256())
    with pytest.raises(MeshError, match="there is none"):
        mint(issuer, Token(label="cnf", confirms="sleep"), NOW)
