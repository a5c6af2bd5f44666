"""The ID of a decision, through the real Envoy: whoever is denied has it, beside everything that a denial says."""

import http.client
from typing import Final

import pytest
from countersign.wire.codec import NUMBER_HEADER, NUMBER_LENGTH

from tests.envoy.storm import storm

pytestmark = pytest.mark.envoy

_TIMEOUT: Final = 10


def _ask(port: int, token: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/", headers={"authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read().decode()
    finally:
        connection.close()


def test_each_denied_client_has_an_id_of_its_own_and_all_else_that_a_denial_says() -> None:
    with storm("a") as running:
        made_up = running.made_up("a")
        answers = [_ask(running.port, token) for token in (made_up, made_up)]
        status, headers, _ = _ask(running.port, running.good("a"))

    for refused, said, body in answers:
        assert (refused, body) == (401, "Jwks doesn't have key to match kid or alg from Jwt")
        assert said["www-authenticate"].endswith('error="invalid_token"')
        assert len(said[NUMBER_HEADER]) == NUMBER_LENGTH
    assert answers[0][1][NUMBER_HEADER] != answers[1][1][NUMBER_HEADER]
    assert status == 200
    assert NUMBER_HEADER not in headers
