"""What can be read of a text that may be a token."""

import pytest
from countersign.core.decision import Reason
from countersign.tokens.peek import peek
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.material import CLAIMS, encode, segment, sign


def test_a_token_is_read_whole() -> None:
    peeked = peek(sign(algorithm="ES256"))

    assert peeked.token is not None
    assert peeked.error is None
    assert (peeked.header, peeked.claims) == ({"alg": "ES256", "kid": "ES256-0"}, dict(CLAIMS))


@pytest.mark.parametrize(
    ("text", "reason", "header", "claims"),
    [
        ("", Reason.TOKEN_MALFORMED, None, None),
        ("a.b.c", Reason.TOKEN_MALFORMED, None, None),
        (segment({"alg": "HS256"}), Reason.TOKEN_MALFORMED, {"alg": "HS256"}, None),
        (f"{segment({'alg': 'none'})}.{segment({'a': 1})}.", Reason.TOKEN_MALFORMED, {"alg": "none"}, {"a": 1}),
        (f"{segment({'alg': 'HS256'})}.{segment({'a': 1})}.AA", Reason.TOKEN_ALGORITHM, {"alg": "HS256"}, {"a": 1}),
        (f"{segment([1])}.{segment({'a': 1})}.AA.AA.AA", Reason.TOKEN_MALFORMED, None, {"a": 1}),
        (f"{segment({'alg': 'RS256'})}.{encode(b'{}x')}.AA", Reason.TOKEN_MALFORMED, {"alg": "RS256"}, None),
    ],
)
def test_of_anything_else_what_can_be_read(text: str, reason: Reason, header: object, claims: object) -> None:
    peeked = peek(text)

    assert peeked.token is None
    assert peeked.error is not None
    assert (peeked.error.reason, peeked.header, peeked.claims) == (reason, header, claims)


@given(st.text(st.characters(codec=None), max_size=40))
def test_nothing_makes_it_raise(text: str) -> None:
    peeked = peek(text)
    assert (peeked.token is None) is (peeked.error is not None)
