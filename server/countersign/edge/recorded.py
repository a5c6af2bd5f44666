"""A recorded check, a CheckRequest as protobuf JSON, to the facts that the same check gave when it was served.

Either one object in a file or, with ``FILE:LINE``, one line of many. Field names may be camelCase, as protobuf writes
them, or as in the .proto. Source: protobuf.dev, ProtoJSON format.
"""

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format

from countersign.core.decision import Deny
from countersign.core.facts import RequestFacts
from countersign.judgement import deny
from countersign.tokens.strict_json import JsonError, loads
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import RequestError, decode

_MAX_CHARACTERS: Final = 16 * 1024 * 1024  # Envoy's own bound on a buffered body is far below

_WITH_LINE: Final = re.compile(r"(.+):([1-9][0-9]{0,8})")
_UNKNOWN: Final = re.compile(r'has no field named "([^"]*)"')
_CONTEXTS: Final = ("metadataContext", "metadata_context", "routeMetadataContext", "route_metadata_context")
_TYPED: Final = ("typedFilterMetadata", "typed_filter_metadata")


class RecordedError(ValueError):
    """The text is no CheckRequest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a recorded check says. ``facts`` is the denial where serving would not have understood it either.

    ``time`` is when the request was made, in seconds since the epoch. ``unread`` names a field that is not Envoy's.
    """

    facts: RequestFacts | Deny
    time: float | None
    unread: str = ""


def read_recorded(where: str) -> Recorded:
    """Read ``FILE`` or ``FILE:LINE`` (lines count from 1). Raise `RecordedError` or OSError."""
    try:
        return parse_recorded(_text(where))
    except RecordedError as error:
        raise RecordedError(f"{where}: {error}") from error


def _text(where: str) -> str:
    numbered = _WITH_LINE.fullmatch(where)
    try:
        if numbered is None or Path(where).exists():
            with Path(where).open(encoding="utf-8") as file:
                return file.read(_MAX_CHARACTERS + 1)
        with Path(numbered[1]).open(encoding="utf-8") as file:
            line = next(islice(file, int(numbered[2]) - 1, None), None)
    except UnicodeDecodeError as error:
        raise RecordedError(f"not UTF-8 at byte {error.start}") from error
    if line is None:
        raise RecordedError("the file has fewer lines")
    return line


def parse_recorded(text: str) -> Recorded:
    """Read one CheckRequest from JSON. Raise `RecordedError`."""
    document = _document(text)
    message, unread = _message(document)
    time = message.attributes.request.time
    facts = facts_of(message.SerializeToString())
    made = time.seconds + time.nanos / 1e9 if message.attributes.request.HasField("time") else None
    return Recorded(facts=facts, time=made, unread=unread)


def facts_of(payload: bytes) -> RequestFacts | Deny:
    """What a serialized CheckRequest says, or the denial that it gets because it cannot be understood."""
    try:
        return decode(payload)
    except RequestError as error:
        return deny(error.reason, str(error))


def _document(text: str) -> dict[str, Any]:
    if len(text) > _MAX_CHARACTERS:
        raise RecordedError(f"longer than {_MAX_CHARACTERS} characters")
    try:
        document = loads(text)
    except JsonError as error:
        lines = len(text.strip().splitlines())
        hint = f"; it has {lines} lines, and FILE:LINE picks one" if lines > 1 and _is_json_line(text) else ""
        place = f", {error.place}" if error.place and not hint else ""
        raise RecordedError(f"no JSON with one reading: {error}{place}{hint}") from error
    if not isinstance(document, dict):
        raise RecordedError("not a JSON object")
    attributes = document.get("attributes")
    if not isinstance(attributes, dict):
        raise RecordedError("no `attributes` object, so it is no CheckRequest")
    return {**document, "attributes": _without_typed_metadata(attributes)}


def _is_json_line(text: str) -> bool:
    try:
        loads(text.strip().splitlines()[0])
    except JsonError:
        return False
    return True


def _without_typed_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """Metadata of types that only their filters know cannot be read here, and no policy asks for it."""
    kept = dict(attributes)
    for name in _CONTEXTS:
        context = kept.get(name)
        if isinstance(context, dict):
            kept[name] = {member: value for member, value in context.items() if member not in _TYPED}
    return kept


def _message(document: dict[str, Any]) -> tuple[pb.CheckRequest, str]:
    """The message, and the first field of the document that it does not have."""
    try:
        return json_format.ParseDict(document, pb.CheckRequest()), ""
    except _REFUSALS as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown is None:
            raise _refused(error) from error
    try:
        message = json_format.ParseDict(document, pb.CheckRequest(), ignore_unknown_fields=True)
    except _REFUSALS as error:
        raise _refused(error) from error
    return message, unknown[1]


# What json_format raises: its own error, and Python's where a value has a shape that it does not expect.
_REFUSALS: Final = (json_format.ParseError, ValueError, TypeError, AttributeError)


def _refused(error: Exception) -> RecordedError:
    return RecordedError(f"no CheckRequest: {' '.join(str(error).split())}")
