"""Issuers over real HTTP that do as a test says, also what no issuer should."""

import asyncio
import contextlib
import datetime as dt
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from countersign.mesh.issuer import Issuer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ISSUER: Final = Issuer("https://issuer.test")
JWKS: Final = json.dumps(ISSUER.jwks()).encode()
KIDS: Final = [key["kid"] for key in ISSUER.jwks()["keys"]]


def answer(body: bytes = JWKS, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """An HTTP answer, octet for octet; ``length`` instead of the true one."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(slots=True)
class Raw:
    """A running server: its port, and each request's head as it came. Setting ``octets`` changes the next answer."""

    port: int
    octets: Iterable[bytes]
    requests: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        """Where the key set is."""
        return f"http://127.0.0.1:{self.port}/jwks.json"


@contextlib.asynccontextmanager
async def raw(
    *octets: bytes, tls: ssl.SSLContext | None = None, pause: float = 0, eager: bool = False
) -> AsyncIterator[Raw]:
    """A server that sends these octets to whoever asks (``eager``: or comes), a piece at a time, and closes."""
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if not eager:
                running.requests.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
            for piece in running.octets:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    running = Raw(server.sockets[0].getsockname()[1], octets)
    try:
        yield running
    finally:
        server.close()
        tasks = [task for task in serving if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """The port of a listener that nobody accepts from, and whose queue is full: the kernel answers no SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            yield port


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[Raw]:
    """An HTTP proxy: it forwards, tunnels, and keeps the head of each request."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(65536):
                writer.write(octets)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        running.requests.append(head.decode("latin-1"))
        method, target, _ = head.decode("latin-1").split(" ", 2)
        authority = target.removeprefix("http://").partition("/")[0]
        host, _, port = authority.rpartition(":")
        upstream_reader, upstream = await asyncio.open_connection(
            "127.0.0.1" if host.endswith(".test") else host, int(port)
        )
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            upstream.write(head)
        await asyncio.gather(pipe(reader, upstream), pipe(upstream_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    running = Raw(server.sockets[0].getsockname()[1], ())
    try:
        yield running
    finally:
        server.close()


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a self-signed certificate and of its key."""

    certificate: Path
    key: Path

    def context(self, maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
        """A server's TLS with it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.maximum_version = maximum
        return context


def certificate(name: str, folder: Path, *, days: int = 1) -> Certificate:
    """A certificate for a name, good for some days from yesterday on."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=2 + days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    files.certificate.write_bytes(built.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


async def until(condition: Callable[[], object]) -> None:
    """Return once it holds, within ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the conditions are about parts that signal nobody)
            await asyncio.sleep(0.002)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run one asynchronous test."""

    async def whole() -> None:
        await test()

    asyncio.run(whole())
