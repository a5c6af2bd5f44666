"""A real gRPC server in a thread of this process, so that a test can break a stage of the request path on purpose."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from countersign.core.decision import Deny
from countersign.core.jwt_rule import KeySource
from countersign.edge.addresses import Address, UnixAddress
from countersign.edge.check import OVERLOADED, Checker, Refresh, report_on
from countersign.edge.metadata import Metadata
from countersign.edge.observed import Observe
from countersign.edge.server import Authorizer, Held, Server
from countersign.edge.transport import Transport, make_server
from countersign.policy.parse import parse
from countersign.policy.scope import PolicySet
from countersign.snapshot import Mesh, Snapshot
from countersign.tokens.keys import KeySet
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import METHOD
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT: Final = 10.0  # seconds: far above anything that is expected, far below a test's patience

READERS: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: apps}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/apps/sa/sleep]}}]
    to: [{operation: {methods: [GET]}}]
"""


def snapshot(
    policies: str = READERS, keys: Mapping[KeySource, KeySet] | None = None, mesh: Mesh | None = None
) -> Snapshot:
    """What the server decides by."""
    mesh = mesh or Mesh(namespace="apps")
    resources = parse({"policies.yaml": policies}, None, lambda _: "").resources
    return Snapshot(mesh=mesh, policies=PolicySet(resources, mesh.root_namespace, 1), keys=keys or {})


def request(
    method: str = "GET",
    path: str = "/headers",
    principal: str = "spiffe://cluster.local/ns/apps/sa/sleep",
    headers: Mapping[str, str] | None = None,
) -> pb.CheckRequest:
    """A check as an Envoy sends it."""
    message = pb.CheckRequest()
    attributes = message.attributes
    attributes.source.principal = principal
    attributes.source.address.socket_address.address = "127.0.0.1"
    attributes.destination.address.socket_address.port_value = 15006
    http = attributes.request.http
    http.method, http.path, http.host, http.scheme = method, path, "httpbin", "https"
    http.headers.update({":method": method, ":path": path, ":authority": "httpbin", **(headers or {})})
    return message


TRANSPORTS: Final = (Transport.NATIVE, Transport.GRPCIO)


class Answering:
    """Answers as a function does, and never refuses."""

    def __init__(self, answer: Callable[[bytes, float | None], bytes | Held]) -> None:
        self._answer = answer

    def answer(self, payload: bytes, time_remaining: float | None, _: Metadata = ()) -> bytes | Held:
        return self._answer(payload, time_remaining)

    def shed(self, _: bytes, __: Metadata = ()) -> bytes:
        return OVERLOADED.octets

    def refuse(self, payload: bytes, denial: Deny, _: Metadata = ()) -> bytes:
        raise AssertionError(f"{payload!r} is refused: {denial}")


def server_on(
    transport: Transport, authorizer: Authorizer, addresses: Sequence[Address], *, metadata: bool = False
) -> Server:
    """A server of that transport; the native one where it must be installed."""
    return make_server(authorizer, addresses, transport, metadata=metadata)


class Serving:
    """A context manager: serves on a unix socket inside it. ``tamper`` changes the bytes of a check on their way in."""

    def __init__(
        self,
        directory: Path,
        current: Callable[[], Snapshot],
        refresh: Refresh = lambda _: None,
        tamper: Callable[[bytes], bytes] = bytes,
        *,
        transport: Transport = Transport.AUTO,
        make: Callable[[Authorizer, Sequence[Address]], Server] | None = None,
        observe: Observe | None = None,
        metadata: bool = False,
    ) -> None:
        self._tamper = tamper
        self._make = make or partial(server_on, transport, metadata=metadata)
        self.address = UnixAddress(str(directory / "authz.sock"))
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._checker = Checker(current, refresh, report_on(self._loop), observe)
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="serving")

    def _run(self) -> None:
        with closing(self._loop) as loop:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = self._make(self, [self.address])
        await server.start()
        await server.set_serving(serving=True)
        self._started.set()
        await self._stop.wait()
        await server.drain(1.0)

    def answer(self, payload: bytes, time_remaining: float | None, metadata: Metadata = ()) -> bytes | Held:
        """What the transport asks, tampered with."""
        return self._checker.answer(self._tamper(payload), time_remaining, metadata)

    def shed(self, payload: bytes, metadata: Metadata = ()) -> bytes:
        """Likewise."""
        return self._checker.shed(payload, metadata)

    def refuse(self, payload: bytes, denial: Deny, metadata: Metadata = ()) -> bytes:
        """Likewise."""
        return self._checker.refuse(payload, denial, metadata)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(TIMEOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def call(self, payload: bytes, *, method: str = METHOD, timeout: float = TIMEOUT) -> pb.CheckResponse:
        """One check with these bytes. Raise grpc.RpcError if the answer is a gRPC error."""
        return call(self.address, payload, method=method, timeout=timeout)

    def check(self, message: pb.CheckRequest, *, timeout: float = TIMEOUT) -> pb.CheckResponse:
        """One check."""
        return self.call(message.SerializeToString(), timeout=timeout)


def call(
    address: UnixAddress, payload: bytes, *, method: str = METHOD, timeout: float = TIMEOUT, metadata: Metadata = ()
) -> pb.CheckResponse:
    """One check with these bytes, on a connection of its own."""
    with grpc.insecure_channel(str(address)) as channel:
        ask = channel.unary_unary(method, bytes, bytes)
        answer: bytes = ask(payload, timeout=timeout, metadata=tuple(metadata))
    return pb.CheckResponse.FromString(answer)


def status_of(error: grpc.RpcError) -> str:
    """The gRPC status of a failed call."""
    code: Callable[[], grpc.StatusCode] = vars(type(error))["code"].__get__(error)
    return code().name


def health(address: UnixAddress, service: str = "") -> str:
    """What the gRPC health service says."""
    with grpc.insecure_channel(str(address)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def reason(response: pb.CheckResponse) -> str:
    """The reason in an answer's metadata."""
    return str(response.dynamic_metadata.fields["reason"].string_value)
