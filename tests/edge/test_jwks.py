"""Key sets come over real HTTP, within limits, and no failure ends the fetching."""

import asyncio
import contextlib
import datetime as dt
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.jwks import KeyFetcher
from countersign.mesh.http_server import HttpServer, Received
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.tokens.keyring import SourceState
from countersign.tokens.keys import KeySet
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ISSUER = Issuer("https://issuer.test")


class Changes(list[Mapping[RemoteKeys, KeySet]]):
    """Every mapping that `on_change` was given."""

    def latest(self, source: RemoteKeys) -> list[str]:
        keys = self[-1].get(source) if self else None
        return [key.kid for key in keys.keys] if keys else []


@contextlib.asynccontextmanager
async def fetching(*sources: RemoteKeys, ca_file: Path | None = None) -> AsyncIterator[tuple[KeyFetcher, Changes]]:
    changes = Changes()
    fetcher = KeyFetcher(changes.append, ca_file=ca_file)
    fetcher.track(sources)
    task = asyncio.create_task(fetcher.run())
    try:
        yield fetcher, changes
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the conditions are about parts that signal nobody)
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def answering(octets: Iterable[bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that answers any request with these octets, a piece at a time; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in octets:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has given up
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def state(fetcher: KeyFetcher) -> SourceState:
    (only,) = fetcher.states()
    return only


async def error_of(source: RemoteKeys, ca_file: Path | None = None) -> str:
    async with fetching(source, ca_file=ca_file) as (fetcher, changes):
        await until(lambda: state(fetcher).error)
        assert changes == []
        return state(fetcher).error


def kids() -> list[str]:
    return [key["kid"] for key in ISSUER.jwks()["keys"]]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()

    asyncio.run(whole())


def test_fetches_what_is_tracked_and_tells() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                assert changes.latest(source) == kids()
                assert server.fetches == 1
                assert (state(fetcher).error, state(fetcher).failures) == ("", 0)

    run(test)


def test_tracks_more_and_less_while_it_runs() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as one, IssuerServer(ISSUER) as two:
            first, second = RemoteKeys(one.jwks_uri), RemoteKeys(two.jwks_uri)
            async with fetching() as (fetcher, changes):
                fetcher.track([first])
                await until(lambda: changes and first in changes[-1])
                fetcher.track([second])
                assert changes[-1] == {}
                await until(lambda: second in changes[-1])
                assert (one.fetches, two.fetches) == (1, 1)

    run(test)


def test_takes_the_interval_from_the_issuer() -> None:
    async def next_refresh(cache_control: str) -> float:
        with IssuerServer(ISSUER) as server:
            server.headers = {"Cache-Control": cache_control}
            async with fetching(RemoteKeys(server.jwks_uri)) as (fetcher, changes):
                await until(lambda: changes)
                due = state(fetcher).next_refresh
                assert due is not None
                return due - time.monotonic()

    async def test() -> None:
        for cache_control, seconds in {
            "public, max-age=600": 600,
            "MAX-AGE=600": 600,
            "no-store": 1200,
            "max-age=x": 1200,
            "max-age=-1": 1200,
            "s-maxage=600": 1200,
            "max-age=9999999999": 1200,
            "max-age=0": 60,
        }.items():
            assert seconds * 0.89 < await next_refresh(cache_control) <= seconds

    run(test)


# A missed key


def test_a_missed_key_is_fetched_once_for_everybody_who_waits() -> None:
    async def test() -> None:
        issuer = Issuer("https://issuer.test")
        with IssuerServer(issuer) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                issuer.rotate("ES256")
                waits = [fetcher.refresh(source) for _ in range(100)]
                assert all(wait is not None for wait in waits)
                assert waits[0] is not None
                waits[0].cancel()  # one who gives up stops nobody
                await asyncio.gather(*(wait for wait in waits[1:] if wait))
                assert issuer.kid("ES256") in changes.latest(source)
                assert server.fetches == 2

    run(test)


def test_within_the_cooldown_there_is_nothing_to_wait_for() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                server.status = 500
                first = fetcher.refresh(source)
                assert first is not None
                await first
                assert state(fetcher).error == "status 500"
                assert [fetcher.refresh(source) for _ in range(1000)] == [None] * 1000
                assert fetcher.refresh(RemoteKeys("https://stranger.test")) is None
                assert server.fetches == 2
                assert changes.latest(source) == kids()  # the old keys stay

    run(test)


def test_the_first_token_waits_for_the_first_fetch() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.delay = 0.02
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                assert changes.latest(source) == kids()
                assert server.fetches == 1

    run(test)


def test_a_source_that_is_dropped_and_tracked_again_meanwhile_is_fetched_once() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.delay = 0.05
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: server.fetches)
                fetcher.track([])
                fetcher.track([source])
                await until(lambda: changes)
                assert changes.latest(source) == kids()
                assert server.fetches == 1

    run(test)


def test_an_answer_for_a_dropped_source_is_dropped() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server, IssuerServer(ISSUER) as other:
            server.delay = 0.02
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                wait = fetcher.refresh(source)
                assert wait is not None
                fetcher.track([RemoteKeys(other.jwks_uri)])
                await wait
                await until(lambda: changes)
                assert list(changes[-1]) == [RemoteKeys(other.jwks_uri)]

    run(test)


def test_ending_ends_the_fetches_and_those_who_wait() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.delay = 60
            source = RemoteKeys(server.jwks_uri, timeout=60)
            async with fetching(source) as (fetcher, changes):
                wait = fetcher.refresh(source)
                await until(lambda: server.fetches)
            assert wait is not None
            await wait
            assert changes == []

    run(test)


# Failures


@pytest.mark.parametrize("status", [201, 204, 301, 302, 304, 400, 401, 403, 404, 429, 500, 503])
def test_any_status_but_200_is_a_failure(status: int) -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server, IssuerServer(ISSUER) as elsewhere:
            server.status = status
            server.headers = {"Location": elsewhere.jwks_uri}
            if status in (204, 304):
                server.body = b""
            assert await error_of(RemoteKeys(server.jwks_uri)) == f"status {status}"
            assert elsewhere.fetches == 0  # a redirect is not followed

    run(test)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "no JSON with one reading: not JSON"),
        (b"<html>", "no JSON with one reading: not JSON"),
        (b"[]", "not an object"),
        (b"{}", "no `keys` array"),
        (b'{"keys":[]}', "no usable key among 0"),
        (b'{"keys":[{"kty":"oct","k":"AAAA"}]}', "no usable key among 1"),
        (b'{"keys":[],"keys":[]}', "no JSON with one reading: a name twice in one object"),
        ('{"keys":[]}'.encode("utf-16"), "the body is not UTF-8"),
        (b" " * (1024 * 1024 + 1), "a body of more than 1048576 octets"),
    ],
)
def test_a_body_that_gives_no_key_is_a_failure(body: bytes, error: str) -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.body = body
            assert await error_of(RemoteKeys(server.jwks_uri)) == error

    run(test)


def test_a_body_of_the_largest_size_is_read() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.body = json.dumps(ISSUER.jwks()).encode().ljust(1024 * 1024)
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (_, changes):
                await until(lambda: changes)
                assert changes.latest(source) == kids()

    run(test)


def test_a_compressed_body_is_a_failure_and_is_not_unpacked() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.body = gzip.compress(bytes(100 * 1024 * 1024), 1)
            server.headers = {"Content-Encoding": "gzip"}
            assert await error_of(RemoteKeys(server.jwks_uri)) == "a compressed body, which was not asked for"

    run(test)


def test_the_timeout_bounds_the_whole_fetch_however_slowly_octets_drip() -> None:
    async def test() -> None:
        begun = time.monotonic()
        async with answering([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b" "] * 1000]) as port:
            source = RemoteKeys(f"http://127.0.0.1:{port}/", timeout=0.3)
            assert await error_of(source) == "no whole answer within 0.3 s"
        assert time.monotonic() - begun < 5

    run(test)


@pytest.mark.parametrize(
    "uri",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "//127.0.0.1/", "http://", "http://u:p@127.0.0.1/", "x", ""],
)
def test_only_http_urls_without_credentials_are_fetched(uri: str) -> None:
    async def test() -> None:
        assert await error_of(RemoteKeys(uri)) == "not an http or https URL of a host without credentials"

    run(test)


@pytest.mark.parametrize(
    ("uri", "error"),
    [("http://127.0.0.1:1/", "ConnectError"), ("http://[", "ConnectError"), ("http://[::1", "InvalidURL")],
)
def test_an_unreachable_issuer_is_a_failure_with_a_name(uri: str, error: str) -> None:
    async def test() -> None:
        assert await error_of(RemoteKeys(uri)) == error

    run(test)


def test_an_answer_that_is_no_http_is_a_failure_that_repeats_nothing_of_it() -> None:
    async def test() -> None:
        async with answering([b"5ecret\r\n\r\n"]) as port:
            assert await error_of(RemoteKeys(f"http://127.0.0.1:{port}/")) == "RemoteProtocolError"

    run(test)


def test_one_failure_is_retried_and_harms_no_other_source() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as bad, IssuerServer(ISSUER) as good:
            bad.status = 500
            failing, working = RemoteKeys(bad.jwks_uri), RemoteKeys(good.jwks_uri)
            async with fetching(failing, working) as (fetcher, changes):
                await until(lambda: changes and working in changes[-1])
                await until(lambda: fetcher.states()[0].error)
                bad.status = 200
                await until(lambda: failing in changes[-1])  # after a second or a little more
                assert (bad.fetches, good.fetches) == (2, 1)

    run(test)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    test_fetches_what_is_tracked_and_tells()


def test_cloud_metadata_is_no_issuer() -> None:
    """The address is checked on the connection; here the check itself, as no such address answers in a test."""
    from countersign.edge.jwks import FetchError, _check_address  # noqa: PLC0415

    for address in ("169.254.169.254", "fe80::1%eth0", "fe80::1", "fd00:ec2::254"):
        with pytest.raises(FetchError, match="link-local"):
            _check_address(address)
    for address in ("127.0.0.1", "::1", "10.0.0.1", "192.0.2.1", "2001:db8::1"):
        _check_address(address)


# TLS


def certificate(name: str, folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for a name: the files of the certificate and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(built.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_tls_is_verified_against_the_trusted_authorities_and_the_name(tmp_path: Path) -> None:
    body = json.dumps(ISSUER.jwks()).encode()
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    localhost, other = certificate("localhost", tmp_path), certificate("other.test", tmp_path)

    async def outcome(own: tuple[Path, Path], ca_file: Path | None) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*own)
        async with answering([answer], context) as port:
            source = RemoteKeys(f"https://localhost:{port}/")
            async with fetching(source, ca_file=ca_file) as (fetcher, changes):
                await until(lambda: changes or state(fetcher).error)
                return state(fetcher).error

    async def test() -> None:
        assert await outcome(localhost, localhost[0]) == ""
        assert await outcome(localhost, None) == "ConnectError"
        assert await outcome(localhost, other[0]) == "ConnectError"
        assert await outcome(other, other[0]) == "ConnectError"
        assert await outcome(localhost, tmp_path / "missing.pem") == "FileNotFoundError"

    run(test)


@contextlib.contextmanager
def discoverable(configuration: object) -> Iterator[RemoteKeys]:
    """An issuer that publishes this OpenID configuration; `%` in it is the issuer's own address."""
    base: list[str] = []

    def answer(received: Received) -> tuple[int, bytes]:
        if received.path == "/.well-known/openid-configuration":
            return 200, json.dumps(configuration).replace("%", base[0]).encode()
        return (200, json.dumps(ISSUER.jwks()).encode()) if received.path == "/keys" else (404, b"{}")

    with HttpServer("issuer", ("127.0.0.1", 0), answer) as server:
        base.append(f"http://127.0.0.1:{server.port}")
        yield RemoteKeys(f"{base[0]}/.well-known/openid-configuration", discover=True)


def test_an_issuer_may_say_itself_where_its_keys_are() -> None:
    async def scenario() -> None:
        with discoverable({"issuer": "%", "jwks_uri": "%/keys"}) as source:
            async with fetching(source) as (_, changes):
                await until(lambda: changes.latest(source))
                assert changes.latest(source) == [key["kid"] for key in ISSUER.jwks()["keys"]]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("configuration", "error"),
    [
        ({"issuer": "%"}, "the OpenID configuration has no jwks_uri"),
        ({"jwks_uri": 5}, "the OpenID configuration has no jwks_uri"),
        (["jwks_uri"], "the OpenID configuration has no jwks_uri"),
        ({"jwks_uri": "file:///etc/passwd"}, "not an http or https URL of a host without credentials"),
        ({"jwks_uri": "%/elsewhere"}, "status 404"),
    ],
)
def test_a_configuration_that_leads_to_no_keys_is_a_failure_that_is_said(configuration: object, error: str) -> None:
    async def scenario() -> None:
        with discoverable(configuration) as source:
            async with fetching(source) as (fetcher, changes):
                await until(lambda: fetcher.states()[0].failures)
                assert fetcher.states()[0].error == error
                assert not changes.latest(source)

    asyncio.run(scenario())


def test_a_configuration_that_is_no_json_is_a_failure() -> None:
    async def scenario() -> None:
        with IssuerServer(ISSUER) as server:
            server.body = b"<html>"
            source = RemoteKeys(server.jwks_uri, discover=True)
            async with fetching(source) as (fetcher, _):
                await until(lambda: fetcher.states()[0].failures)
                assert fetcher.states()[0].error == "the OpenID configuration is not JSON"

    asyncio.run(scenario())
