"""The issuer of the demo mesh signs for real, forges for real and serves its keys for real."""

import http.client
import json
from typing import Any

import jwt
import pytest
from countersign.mesh.issuer import ALGORITHMS, Issuer, IssuerServer

CLAIMS = {"sub": "alice"}


def test_verifies_under_its_own_published_key_for_each_algorithm(issuer: Issuer) -> None:
    for algorithm in ALGORITHMS:
        assert _verify(issuer.sign(CLAIMS, algorithm=algorithm), issuer)["sub"] == "alice"


def test_names_itself_unless_the_claims_name_another_issuer(issuer: Issuer) -> None:
    assert _verify(issuer.sign(CLAIMS), issuer)["iss"] == "https://issuer.test"
    assert _verify(issuer.sign({"iss": "https://other.test"}), issuer)["iss"] == "https://other.test"


def test_leaves_out_a_header_that_is_none_and_adds_the_others(issuer: Issuer) -> None:
    header = jwt.get_unverified_header(issuer.sign(CLAIMS, headers={"kid": None, "cty": "x"}))

    assert header == {"alg": "RS256", "typ": "JWT", "cty": "x"}


def test_publishes_no_private_member(issuer: Issuer) -> None:
    members = {name for key in issuer.jwks()["keys"] for name in key}

    assert members == {"alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"}


def test_forges_with_the_right_kid_and_the_wrong_key(issuer: Issuer) -> None:
    for algorithm in ALGORITHMS:
        forged = issuer.forge(CLAIMS, algorithm=algorithm)

        assert jwt.get_unverified_header(forged)["kid"] == issuer.kid(algorithm)
        with pytest.raises(jwt.InvalidSignatureError):
            _verify(forged, issuer)


def test_makes_an_unsigned_token(issuer: Issuer) -> None:
    token = issuer.unsigned(CLAIMS, algorithm="nOnE")

    assert token.endswith(".")
    assert jwt.get_unverified_header(token)["alg"] == "nOnE"


def test_confuses_rsa_with_hmac(issuer: Issuer) -> None:
    header = jwt.get_unverified_header(issuer.confuse(CLAIMS))

    assert header["alg"] == "HS256"
    assert header["kid"] == issuer.kid()


@pytest.mark.parametrize("keep_old", [True, False])
def test_rotation_changes_the_signing_key_and_keeps_the_old_one_published_if_asked(*, keep_old: bool) -> None:
    issuer = Issuer("https://issuer.test")
    old = issuer.kid("ES256")

    issuer.rotate("ES256", keep_old=keep_old)

    published = {key["kid"] for key in issuer.jwks()["keys"]}
    assert issuer.kid("ES256") != old
    assert (old in published) is keep_old
    assert _verify(issuer.sign(CLAIMS, algorithm="ES256"), issuer)["sub"] == "alice"


def test_serves_its_keys_and_counts_the_fetches(issuer: Issuer) -> None:
    with IssuerServer(issuer) as server:
        assert server.fetches == 0
        status, _, body = _get(server.jwks_uri)

        assert (status, json.loads(body), server.fetches) == (200, issuer.jwks(), 1)


def test_misbehaves_on_request(issuer: Issuer) -> None:
    with IssuerServer(issuer) as server:
        server.status, server.body, server.headers = 503, b"out", {"Retry-After": "7"}
        server.delay = 0.001
        status, headers, body = _get(server.jwks_uri)

        assert (status, headers["Retry-After"], body) == (503, "7", b"out")


def test_serves_nothing_else(issuer: Issuer) -> None:
    with IssuerServer(issuer) as server:
        assert _get(server.jwks_uri + "x")[0] == 404
        assert server.fetches == 0


def test_does_not_wait_for_a_delayed_answer_when_it_leaves(issuer: Issuer) -> None:
    with IssuerServer(issuer) as server:
        server.delay = 60
        connection = http.client.HTTPConnection("127.0.0.1", int(server.jwks_uri.split(":")[2].split("/")[0]))
        connection.request("GET", "/jwks.json")
        while not server.fetches:
            pass
    connection.close()


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("https://issuer.test")


def _verify(token: str, issuer: Issuer) -> dict[str, Any]:
    header = jwt.get_unverified_header(token)
    key = next(jwk for jwk in issuer.jwks()["keys"] if jwk["kid"] == header["kid"])
    return jwt.decode(token, jwt.PyJWK(key), algorithms=[key["alg"]])


def _get(uri: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    host, path = uri.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host)
    connection.request("GET", f"/{path}")
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.headers, body
