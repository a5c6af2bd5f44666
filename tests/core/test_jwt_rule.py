"""Where keys come from, as people read it."""

from countersign.core.jwt_rule import FileKeys, RemoteKeys


def test_a_source_of_keys_is_named_by_where_it_is() -> None:
    assert str(RemoteKeys("https://idp.example/keys")) == "https://idp.example/keys"
    assert str(FileKeys("/etc/keys.json")) == "/etc/keys.json"
