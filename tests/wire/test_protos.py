"""Our descriptor is Envoy's: the same numbers, labels and types, and the committed code is what protoc makes."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from countersign.wire import auth_pb2 as pb
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.support.envoy_data_plane import auth, core, rpc, types

ROOT: Final = Path(__file__).resolve().parents[2]
WIRE: Final = ROOT / "server" / "countersign" / "wire"

ENVOY: Final[dict[str, Any]] = {
    "CheckRequest": auth.CheckRequest,
    "AttributeContext": auth.AttributeContext,
    "AttributeContext.Peer": auth.AttributeContextPeer,
    "AttributeContext.Request": auth.AttributeContextRequest,
    "AttributeContext.HttpRequest": auth.AttributeContextHttpRequest,
    "AttributeContext.TLSSession": auth.AttributeContextTlsSession,
    "CheckResponse": auth.CheckResponse,
    "DeniedHttpResponse": auth.DeniedHttpResponse,
    "OkHttpResponse": auth.OkHttpResponse,
    "Status": rpc.Status,
    "HttpStatus": types.HttpStatus,
    "Address": core.Address,
    "SocketAddress": core.SocketAddress,
    "Pipe": core.Pipe,
    "EnvoyInternalAddress": core.EnvoyInternalAddress,
    "Metadata": core.Metadata,
    "HeaderMap": core.HeaderMap,
    "HeaderValue": core.HeaderValue,
    "HeaderValueOption": core.HeaderValueOption,
    "QueryParameter": core.QueryParameter,
}

# Envoy's are enums, which are varints on the wire, as int32 is.
PLAIN_NUMBERS: Final = frozenset({"HttpStatus.code", "SocketAddress.protocol"})

TYPES: Final = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}


def _messages(descriptors: Any, prefix: str = "") -> dict[str, Descriptor]:
    found = {}
    for descriptor in descriptors:
        if not descriptor.GetOptions().map_entry:
            name = f"{prefix}{descriptor.name}"
            found[name] = descriptor
            found |= _messages(descriptor.nested_types, f"{name}.")
    return found


OURS: Final = _messages(pb.DESCRIPTOR.message_types_by_name.values())


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def test_every_message_of_ours_is_one_of_envoys() -> None:
    assert OURS.keys() == ENVOY.keys()


@pytest.mark.parametrize("name", sorted(ENVOY))
def test_every_field_has_envoys_number_label_type_and_oneof(name: str) -> None:
    theirs = {field.name: field.metadata["betterproto"] for field in dataclasses.fields(ENVOY[name])}

    for field in OURS[name].fields:
        their = theirs[field.name]
        oneof = field.containing_oneof
        assert field.number == their.number, field.name
        assert field.is_repeated == (their.repeated or their.proto_type == "map"), field.name
        assert (oneof.name if oneof else None) == their.group, field.name
        if _is_map(field) and field.message_type is not None:
            members = [TYPES[member.type] for member in field.message_type.fields]
            assert [member.proto_type for member in their.map_meta] == members, field.name
        elif f"{name}.{field.name}" in PLAIN_NUMBERS:
            assert (TYPES[field.type], their.proto_type) == ("int32", "enum")
        else:
            assert TYPES[field.type] == their.proto_type, field.name


@pytest.mark.parametrize("name", sorted(ENVOY))
def test_a_field_that_is_left_out_keeps_its_number_free(name: str) -> None:
    theirs = {field.metadata["betterproto"].number: field.name for field in dataclasses.fields(ENVOY[name])}

    assert {field.number: field.name for field in OURS[name].fields}.items() <= theirs.items()


def test_the_header_append_actions_have_envoys_numbers() -> None:
    theirs = {action.name: action.value for action in core.HeaderValueOptionHeaderAppendAction}

    assert dict(pb.HeaderValueOption.HeaderAppendAction.items()) == theirs


def test_the_service_is_the_one_that_envoy_calls() -> None:
    service = pb.DESCRIPTOR.services_by_name["Authorization"]

    assert service.full_name == "envoy.service.auth.v3.Authorization"
    assert [method.name for method in service.methods] == ["Check"]


def test_the_committed_code_is_what_protoc_makes(tmp_path: Path) -> None:
    protos = ROOT / "protos"
    sources = [str(path) for path in protos.rglob("*.proto")]
    out = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]

    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", *out, *sources], check=True)

    for name in ("auth_pb2.py", "auth_pb2.pyi"):
        assert (tmp_path / "countersign" / "wire" / name).read_bytes() == (WIRE / name).read_bytes()
