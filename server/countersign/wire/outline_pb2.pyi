from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outline(_message.Message):
    __slots__ = ("attributes",)
    class Attributes(_message.Message):
        __slots__ = ("source", "destination", "request", "context_extensions", "metadata_context", "tls_session")
        SOURCE_FIELD_NUMBER: _ClassVar[int]
        DESTINATION_FIELD_NUMBER: _ClassVar[int]
        REQUEST_FIELD_NUMBER: _ClassVar[int]
        CONTEXT_EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
        METADATA_CONTEXT_FIELD_NUMBER: _ClassVar[int]
        TLS_SESSION_FIELD_NUMBER: _ClassVar[int]
        source: _containers.RepeatedScalarFieldContainer[bytes]
        destination: _containers.RepeatedScalarFieldContainer[bytes]
        request: Outline.Request
        context_extensions: _containers.RepeatedScalarFieldContainer[bytes]
        metadata_context: _containers.RepeatedScalarFieldContainer[bytes]
        tls_session: _containers.RepeatedScalarFieldContainer[bytes]
        def __init__(self, source: _Optional[_Iterable[bytes]] = ..., destination: _Optional[_Iterable[bytes]] = ..., request: _Optional[_Union[Outline.Request, _Mapping]] = ..., context_extensions: _Optional[_Iterable[bytes]] = ..., metadata_context: _Optional[_Iterable[bytes]] = ..., tls_session: _Optional[_Iterable[bytes]] = ...) -> None: ...
    class Peer(_message.Message):
        __slots__ = ("address", "labels", "principal", "certificate")
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
        CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
        address: Outline.Address
        labels: _containers.RepeatedScalarFieldContainer[bytes]
        principal: str
        certificate: str
        def __init__(self, address: _Optional[_Union[Outline.Address, _Mapping]] = ..., labels: _Optional[_Iterable[bytes]] = ..., principal: _Optional[str] = ..., certificate: _Optional[str] = ...) -> None: ...
    class Address(_message.Message):
        __slots__ = ("socket_address",)
        SOCKET_ADDRESS_FIELD_NUMBER: _ClassVar[int]
        socket_address: Outline.SocketAddress
        def __init__(self, socket_address: _Optional[_Union[Outline.SocketAddress, _Mapping]] = ...) -> None: ...
    class SocketAddress(_message.Message):
        __slots__ = ("address", "port_value")
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        PORT_VALUE_FIELD_NUMBER: _ClassVar[int]
        address: str
        port_value: int
        def __init__(self, address: _Optional[str] = ..., port_value: _Optional[int] = ...) -> None: ...
    class Request(_message.Message):
        __slots__ = ("http",)
        HTTP_FIELD_NUMBER: _ClassVar[int]
        http: Outline.HttpRequest
        def __init__(self, http: _Optional[_Union[Outline.HttpRequest, _Mapping]] = ...) -> None: ...
    class HttpRequest(_message.Message):
        __slots__ = ("method", "headers", "path", "host", "scheme", "header_map")
        METHOD_FIELD_NUMBER: _ClassVar[int]
        HEADERS_FIELD_NUMBER: _ClassVar[int]
        PATH_FIELD_NUMBER: _ClassVar[int]
        HOST_FIELD_NUMBER: _ClassVar[int]
        SCHEME_FIELD_NUMBER: _ClassVar[int]
        HEADER_MAP_FIELD_NUMBER: _ClassVar[int]
        method: str
        headers: _containers.RepeatedScalarFieldContainer[bytes]
        path: str
        host: str
        scheme: str
        header_map: Outline.HeaderMap
        def __init__(self, method: _Optional[str] = ..., headers: _Optional[_Iterable[bytes]] = ..., path: _Optional[str] = ..., host: _Optional[str] = ..., scheme: _Optional[str] = ..., header_map: _Optional[_Union[Outline.HeaderMap, _Mapping]] = ...) -> None: ...
    class HeaderMap(_message.Message):
        __slots__ = ("headers",)
        HEADERS_FIELD_NUMBER: _ClassVar[int]
        headers: _containers.RepeatedScalarFieldContainer[bytes]
        def __init__(self, headers: _Optional[_Iterable[bytes]] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    attributes: Outline.Attributes
    def __init__(self, attributes: _Optional[_Union[Outline.Attributes, _Mapping]] = ...) -> None: ...
