"""The operator says which issuer's keys come which way."""

from pathlib import Path

from countersign.core.jwt_rule import FileKeys, InlineKeys, KeySource, RemoteKeys
from countersign.edge.keys.access import IssuerKeys
from countersign.edge.keys.bind import bind
from countersign.policy.parse import parse
from countersign.policy.resources import Resources

POLICY = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: apps}
spec:
  jwtRules:
  - {issuer: "https://a.test", jwksUri: "https://keys.test/1"}
  - {issuer: "https://b.test", jwksUri: "https://keys.test/1"}
  - {issuer: "https://c.test"}
  - {issuer: "https://d.test", jwks: '{"keys":[]}'}
"""


def resources() -> Resources:
    return parse({"p.yaml": POLICY}, None, lambda _: "").resources


def bound(*issuers: IssuerKeys) -> list[KeySource]:
    (resource,) = bind(resources(), issuers).request_authentications
    return [rule.keys for rule in resource.rules]


ONE = RemoteKeys("https://keys.test/1")
DISCOVERED = RemoteKeys("https://c.test/.well-known/openid-configuration", discover=True)
INLINE = InlineKeys('{"keys":[]}')


def test_without_an_entry_all_keys_come_the_usual_way() -> None:
    assert bound() == [ONE, ONE, DISCOVERED, INLINE]
    assert bound(IssuerKeys(name="x", issuer="https://stranger.test")) == [ONE, ONE, DISCOVERED, INLINE]


def test_an_entry_for_an_issuer_is_for_its_rules_and_no_others_of_the_same_url() -> None:
    way = RemoteKeys("https://keys.test/1", access="x")

    assert bound(IssuerKeys(name="x", issuer="https://a.test")) == [way, ONE, DISCOVERED, INLINE]
    found = bound(IssuerKeys(name="x", issuer="https://c.test"))[2]
    assert found == RemoteKeys(DISCOVERED.uri, discover=True, access="x")


def test_an_entry_for_a_url_is_for_all_rules_that_name_it() -> None:
    way = RemoteKeys("https://keys.test/1", access="x")

    assert bound(IssuerKeys(name="x", jwks_uri="https://keys.test/1")) == [way, way, DISCOVERED, INLINE]


def test_a_file_takes_the_place_of_the_url_for_its_issuer_only() -> None:
    file = IssuerKeys(name="x", issuer="https://b.test", jwks_file=Path("/keys/b.json"))

    assert bound(file) == [ONE, FileKeys("/keys/b.json"), DISCOVERED, INLINE]


def test_the_first_entry_that_fits_counts() -> None:
    first = IssuerKeys(name="x", issuer="https://a.test")
    second = IssuerKeys(name="y", jwks_uri="https://keys.test/1")

    assert [keys.access for keys in bound(first, second)[:2] if isinstance(keys, RemoteKeys)] == ["x", "y"]


def test_keys_that_a_policy_has_inline_are_left_alone() -> None:
    assert bound(IssuerKeys(name="x", issuer="https://d.test", jwks_file=Path("/keys/d.json")))[3] == INLINE
