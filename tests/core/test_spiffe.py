"""SPIFFE IDs by the letter of SPIFFE-ID.md section 2, and nothing beside it."""

import pytest
from countersign.core import spiffe
from countersign.core.spiffe import SpiffeId, SpiffeIdError, is_trust_domain

from tests.support import vectors

LONGEST_DOMAIN = "d" * 255


@pytest.mark.parametrize(
    ("text", "trust_domain", "path"),
    [
        ("spiffe://td", "td", ""),
        ("spiffe://td/a", "td", "/a"),
        ("spiffe://a-b_c.0/ns/Team.A/sa/x_y-z", "a-b_c.0", "/ns/Team.A/sa/x_y-z"),
        ("spiffe://td/.a/..b/...", "td", "/.a/..b/..."),
        ("spiffe://td/a./a..", "td", "/a./a.."),
        ("spiffe://10.0.0.1/x", "10.0.0.1", "/x"),
        (f"spiffe://{LONGEST_DOMAIN}/x", LONGEST_DOMAIN, "/x"),
        ("spiffe://td/" + "p" * 2036, "td", "/" + "p" * 2036),
    ],
)
def test_an_id_is_split_into_trust_domain_and_path_and_written_back(text: str, trust_domain: str, path: str) -> None:
    parsed = SpiffeId.parse(text)

    assert (parsed.trust_domain, parsed.path) == (trust_domain, path)
    assert str(parsed) == text
    assert parsed.name == trust_domain + path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///a",
        "spiffe:/td/a",
        "https://td/a",
        "SPIFFE://td/a",
        "Spiffe://td/a",
        "spiffe://TD/a",
        "spiffe://tD",
        "spiffe://td/",
        "spiffe://td//a",
        "spiffe://td/a/",
        "spiffe://td/.",
        "spiffe://td/..",
        "spiffe://td/a/../b",
        "spiffe://td/a/./b",
        "spiffe://td/a/..",
        "spiffe://td/a?b",
        "spiffe://td/a#b",
        "spiffe://u@td/a",
        "spiffe://td:443/a",
        "spiffe://td/%61",
        "spiffe://t%64/a",
        "spiffe://td/a;URI=spiffe://td/b",
        "spiffe://td/a,b",
        "spiffe://td/a\n",
        "spiffe://td\n",
        "\nspiffe://td/a",
        " spiffe://td/a",
        "spiffe://td/a ",
        "spiffe://td/a\x00",
        "spiffe://td/\uff41",
        "spiffe://td/\u0663",
        "spiffe://td/*",
        "spiffe://*/a",
        f"spiffe://{LONGEST_DOMAIN}d/x",
        "spiffe://td/" + "p" * 2037,
    ],
)
def test_anything_else_is_refused_never_repaired(text: str) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(text)


@pytest.mark.parametrize(
    ("path", "namespace", "service_account"),
    [
        ("/ns/apps/sa/shop", "apps", "shop"),
        ("/ns/apps", None, None),
        ("/ns/apps/sa", None, None),
        ("/ns/apps/sa/shop/x", None, None),
        ("/x/ns/apps/sa/shop", None, None),
        ("/ns/apps/xx/shop", None, None),
        ("/xx/apps/sa/shop", None, None),
        ("", None, None),
    ],
)
def test_only_the_whole_kubernetes_form_names_a_namespace(
    path: str, namespace: str | None, service_account: str | None
) -> None:
    parsed = SpiffeId("td", path)

    assert parsed.namespace == namespace
    assert parsed.service_account == service_account


@pytest.mark.parametrize("text", ["td", "cluster.local", "a_b-c.0", LONGEST_DOMAIN])
def test_a_trust_domain_is_lower_case_letters_digits_and_three_marks(text: str) -> None:
    assert is_trust_domain(text)


@pytest.mark.parametrize("text", ["", "TD", "td/", "*", "t d", "td\n", "spiffe://td", LONGEST_DOMAIN + "d", "t\u0663"])
def test_nothing_else_is_a_trust_domain(text: str) -> None:
    assert not is_trust_domain(text)


def test_the_published_cases_of_four_spiffe_libraries() -> None:
    cases = vectors.json_file("vectors/spiffe/spiffe_id_cases.json")["cases"]

    assert len(cases) == 609
    for case in cases:
        if case["valid"]:
            parsed = SpiffeId.parse(case["id"])
            assert (parsed.trust_domain, parsed.path) == (case["trust_domain"], case["path"])
        else:
            with pytest.raises(SpiffeIdError):
                SpiffeId.parse(case["id"])


def test_an_id_is_read_the_same_each_time_and_what_is_refused_is_refused_each_time() -> None:
    for _ in range(3):
        assert SpiffeId.parse("spiffe://td/ns/a/sa/b") == SpiffeId("td", "/ns/a/sa/b")
        with pytest.raises(SpiffeIdError):
            SpiffeId.parse("spiffe://td/ns/../sa/b")


def test_no_more_ids_are_remembered_than_there_is_room_for() -> None:
    for number in range(3000):
        SpiffeId.parse(f"spiffe://td/{number}")

    assert spiffe._parsed.cache_info().currsize == 1024
