"""A SPIFFE agent: the Workload API's X.509 call, of the original proto, on a unix socket."""

import asyncio
import importlib
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc_tools import protoc  # type: ignore[import-untyped]  # it has no types

from tests.support.certificates import Issued

_PROTO: Final = Path(__file__).parents[2] / "support" / "workloadapi.proto"


def _compiled() -> ModuleType:
    with tempfile.TemporaryDirectory() as directory:
        assert protoc.main(["", f"-I{_PROTO.parent}", f"--python_out={directory}", str(_PROTO)]) == 0
        sys.path.insert(0, directory)
        try:
            return importlib.import_module("workloadapi_pb2")
        finally:
            sys.path.remove(directory)


api: Final[Any] = _compiled()


def svid(leaf: Issued, bundle: Issued, *intermediates: Issued) -> Any:
    """One identity as the agent sends it."""
    return api.X509SVID(
        spiffe_id="spiffe://cluster.local/ns/mesh/sa/countersign",
        x509_svid=b"".join(each.der for each in (leaf, *intermediates)),
        x509_svid_key=leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        bundle=bundle.der,
    )


class Agent:
    """Sends what it has to everyone, at once and whenever that changes. Asked without the header, it refuses."""

    def __init__(self) -> None:
        self._answer: bytes | None = None  # None: nobody is registered
        self._changed = asyncio.Condition()
        self.calls = 0

    async def give(self, *svids: Any) -> None:
        """Send these from now on."""
        await self.send(api.X509SVIDResponse(svids=svids).SerializeToString())

    async def send(self, octets: bytes | None) -> None:
        """Send these octets from now on; None takes the registration away."""
        async with self._changed:
            self._answer = octets
            self._changed.notify_all()

    async def fetch(self, _: bytes, context: Any) -> AsyncIterator[bytes]:
        """FetchX509SVID."""
        self.calls += 1
        if ("workload.spiffe.io", "true") not in (context.invocation_metadata() or ()):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        sent: bytes | None = None
        while True:
            async with self._changed:
                answer = self._answer
                if answer is None:
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
                    return
                if answer == sent:
                    await self._changed.wait()
                    continue
                sent = answer
            yield answer


@asynccontextmanager
async def serving(agent: Agent, socket: Path) -> AsyncIterator[None]:
    """Serve on a socket."""
    server = grpc.aio.server()
    method: Any = grpc.unary_stream_rpc_method_handler(agent.fetch)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchX509SVID": method}),)
    )
    assert server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
