"""The only code that reads a CheckRequest or builds a CheckResponse.

Envoy looks at nothing but ``status.code`` of an answer, and 0 is OK: a default CheckResponse lets the request
through. So every answer is built here, and a denial's code is written in one place.
Source: envoy.service.auth.v3, ext_authz_grpc_impl.cc.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from countersign.core import hosts
from countersign.core.decision import Allow, Decision, Deny, Mutations, Reason
from countersign.core.facts import Endpoint, Headers, HttpRequest, RequestFacts, is_readable
from countersign.wire import auth_pb2 as pb

SERVICE: Final = "envoy.service.auth.v3.Authorization"
METHOD: Final = f"/{SERVICE}/Check"

# google.rpc.Code
_OK: Final = 0
_PERMISSION_DENIED: Final = 7
_UNAUTHENTICATED: Final = 16
_HTTP_UNAUTHORIZED: Final = 401

NUMBER_HEADER: Final = "x-countersign-decision-id"
NUMBER_LENGTH: Final = 28  # of the ID of a decision, in ASCII

_REMEMBERED: Final = 1024  # answers
_NONE: Final = Mutations()
_SHORT: Final = 256  # characters of a detail that is worth remembering

# Of a message inside a message: so it is written in half the time that a message takes which is then copied.
_Fields = Mapping[str, Any]

_OVERWRITE: Final = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_APPEND: Final = pb.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD


class RequestError(ValueError):
    """The bytes are no CheckRequest that can be judged; ``reason`` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def is_sound(payload: bytes) -> bool:
    """Whether the bytes are a CheckRequest, of whatever sense."""
    try:
        pb.CheckRequest.FromString(payload)
    except DecodeError:
        return False
    return True


def decode(payload: bytes) -> RequestFacts:
    """Read a serialized CheckRequest. Raise `RequestError` if it cannot be one."""
    try:
        request = pb.CheckRequest.FromString(payload)
    except DecodeError as error:
        raise RequestError(Reason.REQUEST_MALFORMED, "not a CheckRequest") from error
    if not request.HasField("attributes"):
        raise RequestError(Reason.REQUEST_INCOMPLETE, "no attributes")
    attributes = request.attributes
    return RequestFacts(
        http=_http(attributes.request.http) if attributes.request.HasField("http") else None,
        source=endpoint(attributes.source),
        destination=endpoint(attributes.destination),
        sni=server_name(attributes.tls_session) if attributes.HasField("tls_session") else None,
        context_extensions=attributes.context_extensions,
        metadata=metadata_of(attributes.metadata_context),
    )


def _http(http: pb.AttributeContext.HttpRequest) -> HttpRequest:
    headers = raw_headers(http.header_map.headers) if http.HasField("header_map") else joined_headers(http.headers)
    if not headers:
        raise RequestError(Reason.REQUEST_INCOMPLETE, "no headers")
    return HttpRequest(method=http.method, path=http.path, host=http.host, scheme=http.scheme, headers=headers)


def raw_headers(lines: Sequence[pb.HeaderValue]) -> Headers:
    """The lines of ``encode_raw_headers``: every one apart, its bytes as they came.

    Values are not read yet where names need no work: no name is there twice, and each is in lower case.
    """
    once = {line.key: line for line in lines}
    if len(once) == len(lines) and _in_lower_case(once):
        return Headers(_RawLines(once))
    return Headers.of((line.key, _text(line)) for line in lines)


def joined_headers(headers: Mapping[str, str]) -> Headers:
    """The headers without ``encode_raw_headers``: Envoy has joined the lines of a name."""
    if _in_lower_case(headers):
        return Headers(_JoinedLines(headers), joined=True)
    return Headers.of(headers.items(), joined=True)


def _in_lower_case(names: Iterable[str]) -> bool:
    together = "\n".join(names)
    return together == together.lower()


class _RawLines:
    """`Lines` of a HeaderMap, each read when it is asked for."""

    __slots__ = ("_lines",)

    def __init__(self, lines: Mapping[str, pb.HeaderValue]) -> None:
        self._lines = lines

    def get(self, name: str, default: tuple[str, ...], /) -> tuple[str, ...]:
        line = self._lines.get(name)
        return default if line is None else (_text(line),)

    def keys(self) -> Iterable[str]:
        return self._lines.keys()

    def __len__(self) -> int:
        return len(self._lines)


class _JoinedLines:
    """`Lines` of the map of headers, likewise. ``get`` of a protobuf map makes no entry; a subscript would."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def get(self, name: str, default: tuple[str, ...], /) -> tuple[str, ...]:
        value = self._headers.get(name)
        return default if value is None else (value,)

    def keys(self) -> Iterable[str]:
        return self._headers.keys()

    def __len__(self) -> int:
        return len(self._headers)


def _text(line: pb.HeaderValue) -> str:
    raw = line.raw_value
    return raw.decode("utf-8", "surrogateescape") if raw else line.value


def server_name(session: pb.AttributeContext.TLSSession) -> str:
    """The SNI of a session: Envoy's RBAC sees it in lower case (socket_impl.h), we as sent.

    Plaintext too has a session, an empty one.
    """
    return hosts.fold(session.sni)


def metadata_of(metadata: pb.Metadata) -> Mapping[str, Mapping[str, Any]]:
    """What other filters wrote."""
    return cast("Mapping[str, Mapping[str, Any]]", metadata.filter_metadata)  # a Struct is such a mapping


def endpoint(peer: pb.AttributeContext.Peer) -> Endpoint:
    """One end of the connection."""
    socket = peer.address.socket_address
    return Endpoint(
        address=socket.address,
        port=socket.port_value,
        principal=peer.principal,
        certificate=peer.certificate,
        labels=peer.labels,
    )


def encode(decision: Decision) -> bytes:
    """Write the CheckResponse of a decision. What says nothing of the request itself is written once."""
    if isinstance(decision, Allow):
        if not decision.mutations.set_headers:
            return _remembered(decision)
        # Only the metadata of it recurs, which is a field of its own.
        answer = pb.CheckResponse(status=pb.Status(code=_OK), ok_response=_ok(decision.mutations))
        return answer.SerializeToString() + _metadata_alone(_without_mutations(decision))
    recurs = not decision.headers and len(decision.detail) <= _SHORT
    return _remembered(decision) if recurs else _encoded(decision)


def _without_mutations(allow: Allow) -> Allow:
    return Allow(
        reason=allow.reason,
        policy=allow.policy,
        mutations=_NONE,
        generation=allow.generation,
        audit=allow.audit,
        dry_run=allow.dry_run,
    )


@lru_cache(_REMEMBERED)
def _metadata_alone(decision: Decision) -> bytes:
    return pb.CheckResponse(dynamic_metadata=_metadata(decision)).SerializeToString()


def _encoded(decision: Decision) -> bytes:
    if isinstance(decision, Allow):
        response = pb.CheckResponse(status=pb.Status(code=_OK), ok_response=_ok(decision.mutations))
    else:
        code = _UNAUTHENTICATED if decision.status == _HTTP_UNAUTHORIZED else _PERMISSION_DENIED
        response = pb.CheckResponse(
            status=pb.Status(code=code),
            denied_response=pb.DeniedHttpResponse(
                status=pb.HttpStatus(code=decision.status),
                headers=[_option(name, value, _OVERWRITE) for name, value in decision.headers],
                body=decision.body,
            ),
        )
    response.dynamic_metadata.CopyFrom(_metadata(decision))
    return response.SerializeToString()


_remembered: Final = lru_cache(maxsize=_REMEMBERED)(_encoded)


def numbered(octets: bytes, number: str, *, allows: bool) -> bytes:
    """A CheckResponse with the ID of its decision: in Envoy's metadata, and in a header to whoever is denied.

    Written behind the response: what protobuf reads twice of one message, it merges. Raise ValueError for a number
    that is not ``NUMBER_LENGTH`` ASCII characters, for which there is no room.
    """
    if len(number) != NUMBER_LENGTH:
        raise ValueError(f"an ID has {NUMBER_LENGTH} characters, not {len(number)}")
    return octets + number.encode("ascii").join(_ALLOW_NUMBERED if allows else _DENY_NUMBERED)


def _ok(mutations: Mutations) -> _Fields:
    """The fields of an OkHttpResponse."""
    set_headers: list[_Fields] = []
    seen: set[str] = set()
    for name, value in mutations.set_headers:
        set_headers.append(_appended(name, value) if name in seen else _option(name, value, _OVERWRITE))
        seen.add(name)
    return {
        "headers": set_headers,
        "headers_to_remove": mutations.remove_headers,
        "query_parameters_to_remove": mutations.remove_query_parameters,
    }


def _appended(name: str, value: str) -> _Fields:
    """A further line. ``append_action`` alone does not say so: its 0 is what Envoy takes for unset (tried, 1.40)."""
    return {**_option(name, value, _APPEND), "append": {"value": True}}


def _option(name: str, value: str, action: pb.HeaderValueOption.HeaderAppendAction) -> _Fields:
    """The fields of a HeaderValueOption."""
    return {"header": {"key": name, "value": value}, "append_action": action}


def _metadata(decision: Decision) -> Struct:
    """What Envoy's access log can print, under ``envoy.filters.http.ext_authz``."""
    metadata = Struct()
    fields = metadata.fields
    fields["decision"].string_value = "ALLOW" if isinstance(decision, Allow) else "DENY"
    fields["reason"].string_value = decision.reason
    if decision.policy is not None:
        fields["policy"].string_value = _utf8(decision.policy.id)
        fields["source"].string_value = _utf8(decision.policy.source)
    if isinstance(decision, Deny) and decision.detail:
        fields["detail"].string_value = _utf8(decision.detail)
    if decision.audit is not None:
        fields["audit"].string_value = _utf8(decision.audit.id)
    if decision.dry_run is not None:
        tried = fields["dry_run"].struct_value.fields
        tried["decision"].string_value = "ALLOW" if decision.dry_run.allowed else "DENY"
        tried["reason"].string_value = decision.dry_run.reason
        if decision.dry_run.policy is not None:
            tried["policy"].string_value = _utf8(decision.dry_run.policy.id)
    fields["generation"].number_value = decision.generation
    return metadata


def _utf8(text: str) -> str:
    """Text that protobuf can carry: a byte that was not UTF-8, of a header or of a file's name, is escaped."""
    return text if is_readable(text) else text.encode("utf-8", "backslashreplace").decode()


def _template(response: pb.CheckResponse) -> tuple[bytes, ...]:
    response.dynamic_metadata.fields["decision_id"].string_value = _NUMBER
    return tuple(response.SerializeToString().split(_NUMBER.encode()))


_NUMBER: Final = "#" * NUMBER_LENGTH
_ALLOW_NUMBERED: Final = _template(pb.CheckResponse())
_DENY_NUMBERED: Final = _template(
    pb.CheckResponse(
        denied_response=pb.DeniedHttpResponse(headers=[_option(NUMBER_HEADER, _NUMBER, _OVERWRITE)]),
    )
)
