"""Objects of a cluster as texts: the same to the parser as the file that made them, and never too many."""

from typing import Any

import pytest
from countersign.edge.kubernetes.api import ApiError, Collection
from countersign.edge.kubernetes.objects import MAX_CHARACTERS, MAX_OBJECTS, Objects, text_of, texts_of
from countersign.edge.kubernetes.placed import placed
from countersign.policy.parse import parse
from countersign.policy.problems import PolicyError
from hypothesis import given
from hypothesis import strategies as st

KIND = "AuthorizationPolicy"
APPS, OTHERS = Collection(KIND, "apps"), Collection(KIND, "others")


def found(name: str = "p", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "security.istio.io/v1", "kind": KIND, "metadata": meta(name), "spec": spec}


def meta(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "apps",
        "resourceVersion": "1",
        "uid": "u",
        "managedFields": [{"manager": "m"}],
        "labels": {"a": "b"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"istio.io/dry-run": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_whatever_a_string_is_the_parser_reads_the_same(text: str) -> None:
    name, written = text_of(KIND, "v1", found(rules=[{"when": [{"key": "request.headers[x]", "values": [text]}]}]))
    (policy,) = parse({name: written}, None, lambda _: "").resources.authorization_policies

    assert name == "kubernetes://apps/AuthorizationPolicy/p"
    assert [term.values for clause in policy.rules[0].conditions for term in clause] == [(text,)]


def test_of_the_metadata_there_is_what_a_policy_reads() -> None:
    _, written = text_of(KIND, "v1beta1", {**found(), "status": {"conditions": []}})
    (policy,) = parse({"x": written}, None, lambda _: "").resources.authorization_policies

    assert policy.dry_run
    assert policy.meta.created == "2026-01-01T00:00:00Z"
    assert '"security.istio.io/v1beta1"' in written
    for left_out in ("status", "uid", "managedFields", "resourceVersion", "labels", "last-applied"):
        assert left_out not in written


def test_what_is_none_of_a_policys_fields_is_an_error_and_not_left_out() -> None:
    name, written = text_of(KIND, "v1", {**found(), "spek": {}})
    with pytest.raises(PolicyError) as error:
        parse({name: written}, None, lambda _: "")

    (problem,) = placed(error.value.problems, {name: written})
    assert "unknown field `spek` in `AuthorizationPolicy` (at spek)" in str(problem)


def test_nothing_is_told_before_each_collection_has_been_listed() -> None:
    known = Objects([APPS, OTHERS])
    known.replace(APPS, texts_of(KIND, "v1", [found("a")]))
    assert known.texts() is None
    known.replace(OTHERS, {})
    assert known.texts() is not None
    assert set(known.texts() or ()) == {"kubernetes://apps/AuthorizationPolicy/a"}


def test_events_change_what_a_list_said() -> None:
    known = Objects([APPS])
    known.replace(APPS, texts_of(KIND, "v1", [found("a"), found("b")]))
    known.put(APPS, "v1", found("a", action="DENY"))
    known.put(APPS, "v1", found("c"))
    known.remove(APPS, "v1", found("b"))
    known.remove(APPS, "v1", found("b"))  # a watch may say again what a list has said

    texts = known.texts() or {}
    assert [name[-1] for name in texts] == ["a", "c"]
    assert '"DENY"' in texts["kubernetes://apps/AuthorizationPolicy/a"]


@pytest.mark.parametrize("wrong", [{}, {"metadata": 1}, {"metadata": {"name": "x"}}, {"metadata": {"namespace": "x"}}])
def test_an_object_without_a_name_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="an object without"):
        text_of(KIND, "v1", wrong)


def test_too_many_objects_change_nothing() -> None:
    known = Objects([APPS])
    names = [f"kubernetes://apps/{KIND}/{number}" for number in range(MAX_OBJECTS)]
    known.replace(APPS, dict.fromkeys(names, ""))
    with pytest.raises(ApiError, match="name the namespaces that matter"):
        known.put(APPS, "v1", found("more"))
    with pytest.raises(ApiError, match="name the namespaces that matter"):
        known.replace(APPS, dict.fromkeys([*names, "more"], ""))
    assert len(known.texts() or ()) == MAX_OBJECTS
    known.replace(APPS, {})
    known.put(APPS, "v1", found("more"))


def test_too_much_text_changes_nothing() -> None:
    known = Objects([APPS])
    known.replace(APPS, {"a": "x" * MAX_CHARACTERS})
    with pytest.raises(ApiError, match="characters"):
        known.put(APPS, "v1", found("more"))
    assert set(known.texts() or ()) == {"a"}
    known.replace(APPS, {"a": "x"})
    known.put(APPS, "v1", found("more"))


def test_a_change_before_a_list_is_refused() -> None:
    with pytest.raises(ApiError, match="never listed"):
        Objects([APPS]).put(APPS, "v1", found())
