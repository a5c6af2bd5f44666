"""The objects of a cluster as texts: what a policy means in them, each under its own name, bounded."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from countersign.edge.kubernetes.address import SCHEME
from countersign.edge.kubernetes.api import GROUP, ApiError, Collection, Object

MAX_OBJECTS: Final = 10_000
MAX_CHARACTERS: Final = 64 * 1024 * 1024

_KEPT: Final = ("name", "namespace", "creationTimestamp", "annotations")  # of the metadata
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"  # the object once more, as an annotation
# What JSON lets stand in a string, and YAML reads as the end of a line or refuses.
_NOT_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class Objects:
    """What is known of each collection. `texts` is None until each has been listed."""

    def __init__(self, collections: Iterable[Collection]) -> None:
        self._texts: dict[Collection, dict[str, str] | None] = dict.fromkeys(collections)
        self._count = self._characters = 0

    def texts(self) -> Mapping[str, str] | None:
        """Every object's text by its name, ``kubernetes://namespace/Kind/name``."""
        together: dict[str, str] = {}
        for texts in self._texts.values():
            if texts is None:
                return None
            together |= texts
        return together

    def replace(self, collection: Collection, texts: Mapping[str, str]) -> None:
        """These are all that there are, as `texts_of` gives them. Raise `ApiError`, and change nothing, if too many."""
        before = self._texts[collection] or {}
        self._account(len(texts) - len(before), _characters(texts) - _characters(before))
        self._texts[collection] = dict(texts)

    def put(self, collection: Collection, version: str, found: Object) -> None:
        """There is this one, new or changed. Raise `ApiError`."""
        name, text = text_of(collection.kind, version, found)
        texts = self._listed(collection)
        before = texts.get(name)
        self._account(int(before is None), len(text) - len(before or ""))
        texts[name] = text

    def remove(self, collection: Collection, version: str, found: Object) -> None:
        """There is this one no more. Raise `ApiError`."""
        name, _ = text_of(collection.kind, version, found)
        before = self._listed(collection).pop(name, None)
        if before is not None:
            self._account(-1, -len(before))

    def _listed(self, collection: Collection) -> dict[str, str]:
        texts = self._texts[collection]
        if texts is None:
            raise ApiError("a change of what was never listed", again=False)
        return texts

    def _account(self, count: int, characters: int) -> None:
        if count > 0 or characters > 0:
            refuse_too_many(self._count + count, self._characters + characters)
        self._count += count
        self._characters += characters


def refuse_too_many(count: int, characters: int) -> None:
    """Raise `ApiError` beyond what is taken from a cluster."""
    if count > MAX_OBJECTS or characters > MAX_CHARACTERS:
        raise ApiError(
            f"more than {MAX_OBJECTS} objects, or {MAX_CHARACTERS} characters; name the namespaces that matter",
            again=False,
        )


def _characters(texts: Mapping[str, str]) -> int:
    return sum(map(len, texts.values()))


def texts_of(kind: str, version: str, objects: Iterable[Object]) -> Mapping[str, str]:
    """The objects' texts by their names. Raise `ApiError`."""
    return dict(text_of(kind, version, each) for each in objects)


def text_of(kind: str, version: str, found: Object) -> tuple[str, str]:
    """An object's name among the texts, and its text: JSON with a field on each line. Raise `ApiError`.

    Of the metadata there is what a policy reads. What others write beside it (``status``, ``managedFields``) comes and
    goes, and must not look like a change.
    """
    metadata = found.get("metadata")
    if not isinstance(metadata, dict):
        raise ApiError("an object without `metadata`", again=False)
    names = metadata.get("namespace"), metadata.get("name")
    if not all(isinstance(name, str) and name for name in names):
        raise ApiError("an object without `metadata.namespace` or `metadata.name`", again=False)
    kept = {name: metadata[name] for name in _KEPT if metadata.get(name) is not None}
    if isinstance(kept.get("annotations"), dict):
        kept["annotations"] = {name: text for name, text in kept["annotations"].items() if name != _LAST_APPLIED}
    others = {name: value for name, value in found.items() if name not in {"apiVersion", "kind", "metadata", "status"}}
    document = {"apiVersion": f"{GROUP}/{version}", "kind": kind, "metadata": kept, **others}
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return f"{SCHEME}{names[0]}/{kind}/{names[1]}", _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
