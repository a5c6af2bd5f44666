"""Whose certificate may be a workload's: what X509-SVID.md wants of a leaf, refused one by one."""

from dataclasses import replace
from typing import Any, Final

import pytest
from countersign.core.certificate import Certificate, why_no_workload

ID: Final = "spiffe://cluster.local/ns/apps/sa/shop"
LEAF: Final = Certificate(
    sha256=bytes(32), subject="", issuer="CN=CA", serial=1, not_before=0.0, not_after=1.0, uris=(ID,), key="EC P-256",
    key_usage=frozenset({"digitalSignature", "keyEncipherment"}),
)  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dns": ("shop.example",), "subject": "CN=shop"},
        {"key_usage": None},  # for those who issue, not for those who validate
        {"key_usage": frozenset({"digitalSignature"})},
        {"path_length": None, "extended_key_usage": ("clientAuth",)},
    ],
)
def test_a_leaf_with_one_workloads_id_is_a_workloads(fields: dict[str, Any]) -> None:
    assert why_no_workload(replace(LEAF, **fields)) == ""


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"uris": ()}, "0 URI SANs"),
        ({"uris": (ID, "https://shop.example/")}, "2 URI SANs"),
        ({"uris": (ID, ID)}, "2 URI SANs"),
        ({"uris": ("https://shop.example/",)}, "no SPIFFE ID"),
        ({"uris": ("SPIFFE://cluster.local/a",)}, "no SPIFFE ID"),
        ({"uris": ("spiffe://cluster.local",)}, "a trust domain's"),
        ({"is_ca": True}, "a CA's"),
        ({"key_usage": frozenset({"digitalSignature", "keyCertSign"})}, "keyCertSign"),
        ({"key_usage": frozenset({"digitalSignature", "cRLSign"})}, "cRLSign"),
        ({"key_usage": frozenset({"keyEncipherment"})}, "without digitalSignature"),
        ({"key_usage": frozenset()}, "without digitalSignature"),
    ],
)
def test_anything_else_is_not_and_it_is_said_why(fields: dict[str, Any], told: str) -> None:
    assert told in why_no_workload(replace(LEAF, **fields))


@pytest.mark.parametrize(
    ("uris", "claims"),
    [((ID,), True), (("SPIFFE:x",), True), (("https://a/b", ID), True), (("https://spiffe:1/",), False), ((), False)],
)
def test_who_names_the_scheme_claims_to_be_a_workload(uris: tuple[str, ...], claims: bool) -> None:
    assert replace(LEAF, uris=uris).names_workload is claims
