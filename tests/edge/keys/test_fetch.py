"""One fetch over real HTTP: what it takes, what it refuses, and that nothing prolongs or enlarges it."""

import asyncio
import gzip
import json
import ssl
import time
from ipaddress import ip_network
from pathlib import Path

import pytest
from countersign.core.jwt_rule import RemoteKeys
from countersign.edge.keys.access import Access
from countersign.edge.keys.fetch import Fetched, FetchError, fetch, get, trust
from countersign.edge.keys.freshness import Validators

from tests.edge.keys.issuing import JWKS, KIDS, answer, certificate, deaf, proxy, raw, run

NOT_HTTP = "not an http or https URL of a host without credentials"


async def error_of(source: RemoteKeys, access: Access = Access()) -> str:  # noqa: B008 (frozen)
    with pytest.raises(FetchError) as refused:
        await fetch(source, access)
    return str(refused.value)


async def error_after(*octets: bytes) -> str:
    """Why an answer gives no keys."""
    async with raw(*octets) as server:
        return await error_of(RemoteKeys(server.uri))


def late(seconds: float, stage: str) -> str:
    """What is said when time is up at a stage."""
    return f"no whole answer within {seconds:g} s: still {stage}"


def kids(fetched: Fetched) -> list[str]:
    assert fetched.keys is not None
    return [key.kid for key in fetched.keys.keys]


def test_a_key_set_is_fetched_and_nothing_but_what_is_needed_is_said() -> None:
    async def test() -> None:
        async with raw(answer()) as server:
            assert kids(await fetch(RemoteKeys(server.uri), Access())) == KIDS
            head = server.requests[0].lower()
            assert head.startswith("get /jwks.json http/1.1\r\n")
            assert f"host: 127.0.0.1:{server.port}\r\n" in head
            assert "accept-encoding: identity\r\n" in head
            assert "authorization" not in head
            assert "cookie" not in head

    run(test)


# Answers


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("201 Created", "status 201"),
        ("204 No Content", "status 204"),
        ("304 Not Modified", "status 304"),  # nobody asked for that
        ("400 Bad Request", "status 400"),
        ("404 Not Found", "status 404"),
        ("429 Too Many Requests", "status 429"),
        ("500 Internal Server Error", "status 500"),
    ],
)
def test_any_status_but_200_is_a_failure(status: str, error: str) -> None:
    async def test() -> None:
        body = b"" if status[:3] in ("204", "304") else JWKS
        assert await error_after(answer(body, status=status)) == error

    run(test)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 x", "308 x"])
@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/keys", "http://169.254.169.254/latest/meta-data/", "/keys"])
def test_no_redirect_is_followed_wherever_it_leads(status: str, to: str) -> None:
    async def test() -> None:
        async with raw(answer()) as elsewhere:
            location = "Location: " + to.format(port=elsewhere.port)
            begun = time.monotonic()
            async with raw(answer(b"", location, status=status)) as server:
                error = await error_of(RemoteKeys(server.uri))
                assert len(server.requests) == 1
            assert error == f"status {status[:3]}: redirects are not followed"
            assert elsewhere.requests == []
            assert time.monotonic() - begun < 2  # nobody tried to connect to an address that does not answer

    run(test)


TEN_THOUSAND = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": str(number)} for number in range(10_000)]})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "no JSON with one reading: not JSON"),
        (b"<html>", "no JSON with one reading: not JSON"),
        (b"\x00\xff\xfe" * 100, "the body is not UTF-8"),
        (JWKS[:-10], "no JSON with one reading: not JSON"),
        (b"[]", "not an object"),
        (b"{}", "no `keys` array"),
        (b'{"keys":[],"keys":[]}', "no JSON with one reading: a name twice in one object"),
        (b" " * (1024 * 1024 + 1), "a body of more than 1048576 octets"),
        (b'{"keys":[' + b"{}," * 100 + b"{}]}", "more than 100 keys"),
        (TEN_THOUSAND.encode(), "no JSON with one reading: an array of more than 1024 elements"),
    ],
)
def test_a_body_that_is_no_key_set_is_a_failure(body: bytes, error: str) -> None:
    async def test() -> None:
        assert await error_after(answer(body)) == error

    run(test)


def test_a_body_of_the_largest_size_is_read() -> None:
    async def test() -> None:
        async with raw(answer(JWKS.ljust(1024 * 1024))) as server:
            assert kids(await fetch(RemoteKeys(server.uri), Access())) == KIDS

    run(test)


def test_a_compressed_body_is_refused_and_never_unpacked() -> None:
    async def test() -> None:
        bomb = gzip.compress(bytes(100 * 1024 * 1024), 1)
        error = "a compressed body, which was not asked for"
        assert await error_after(answer(bomb, "Content-Encoding: gzip")) == error
        assert await error_after(answer(gzip.compress(JWKS), "Content-Encoding: gzip, identity")) == error
        assert await error_after(answer(bomb)) == "the body is not UTF-8"  # and if it does not say so

    run(test)


def test_a_length_that_is_not_true_gives_no_keys() -> None:
    async def test() -> None:
        assert await error_after(answer(length=len(JWKS) + 1)) == "RemoteProtocolError"  # it closes midway
        assert await error_after(answer(length=len(JWKS) - 1)) == "no JSON with one reading: not JSON"
        assert await error_after(answer(length=-1)) == "RemoteProtocolError"
        assert await error_after(answer(b"", f"Content-Length: {len(JWKS)}")) == "RemoteProtocolError"
        endless = [b"%x\r\n%s\r\n" % (65536, b" " * 65536)] * 32
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await error_after(head, *endless) == "a body of more than 1048576 octets"

    run(test)


@pytest.mark.parametrize("octets", [b"5ecret\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, b"", b"\x00" * 50])
def test_an_answer_that_is_no_http_is_named_and_nothing_of_it_is_repeated(octets: bytes) -> None:
    async def test() -> None:
        assert await error_after(octets) in ("RemoteProtocolError", "ReadError")

    run(test)


# Time


def test_the_timeout_bounds_the_whole_fetch_however_slowly_octets_drip() -> None:
    async def test() -> None:
        begun = time.monotonic()
        drip = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b" "] * 1000]
        async with raw(*drip, pause=0.02) as server:
            assert await error_of(RemoteKeys(server.uri, timeout=0.3)) == late(0.3, "reading the answer's body")
        async with raw(*[bytes([octet]) for octet in answer()], pause=0.02) as server:  # the head drips too
            assert await error_of(RemoteKeys(server.uri, timeout=0.3)) == late(0.3, "waiting for the answer")
        assert time.monotonic() - begun < 5

    run(test)


def test_a_server_that_hangs_is_given_up() -> None:
    async def test() -> None:
        async with raw(b"", pause=60) as server:
            hanging = late(0.2, "waiting for the answer")
            assert await error_of(RemoteKeys(server.uri, timeout=0.2)) == hanging
            with pytest.raises(FetchError) as refused:
                await get(server.uri, Access(), 0.2)
            assert str(refused.value) == hanging

    run(test)


def test_a_host_that_takes_no_connection_is_told_from_one_that_does_not_answer() -> None:
    async def test() -> None:
        async with deaf() as port:
            source = RemoteKeys(f"http://127.0.0.1:{port}/", timeout=0.2)
            assert await error_of(source) == late(0.2, "connecting to the host")
            way = Access(proxy=f"http://127.0.0.1:{port}")
            assert await error_of(RemoteKeys("https://idp.test/", timeout=0.2), way) == late(
                0.2, "connecting to the proxy"
            )

    run(test)


def test_a_tls_handshake_that_does_not_end_is_told_and_its_connection_closed() -> None:
    async def test() -> None:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert (await reader.read()).startswith(b"\x16\x03")  # a TLS ClientHello, and then the end
            closed.set()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            source = RemoteKeys(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout=0.3)
            assert await error_of(source) == late(0.3, "in the TLS handshake")
            async with asyncio.timeout(5):
                await closed.wait()

    run(test)


def test_an_address_that_takes_no_connection_is_given_up_before_the_fetch_is() -> None:
    async def test() -> None:
        async with deaf() as port:
            source = RemoteKeys(f"http://127.0.0.1:{port}/", timeout=5)
            assert await error_of(source) == "cannot connect: no answer within 2 s"

    run(test)


def test_retry_after_is_told() -> None:
    async def test() -> None:
        async with raw(answer(b"", "Retry-After: 120", status="503 Unavailable")) as server:
            with pytest.raises(FetchError) as refused:
                await fetch(RemoteKeys(server.uri), Access())
        assert refused.value.retry_after == 120

    run(test)


# Unchanged


def test_an_unchanged_set_is_asked_for_by_its_validators_and_not_sent_again() -> None:
    async def test() -> None:
        async with raw(answer(JWKS, 'ETag: "v1"', "Last-Modified: x", "Cache-Control: max-age=90")) as server:
            source = RemoteKeys(server.uri)
            first = await fetch(source, Access())
            assert first.validators == Validators(uri=server.uri, etag='"v1"', last_modified="x")
            server.octets = [answer(b"", "Cache-Control: max-age=70", status="304 Not Modified")]
            second = await fetch(source, Access(), first.validators)
            assert (second.keys, second.text, second.validators) == (None, None, first.validators)
            assert (first.freshness.max_age, second.freshness.max_age) == (90, 70)
            assert ['if-none-match: "v1"' in head.lower() for head in server.requests] == [False, True]
            elsewhere = RemoteKeys(server.uri + "?2")
            assert await error_of(elsewhere) == "status 304"
            with pytest.raises(FetchError, match="status 304"):  # the validators are of another URL
                await fetch(elsewhere, Access(), first.validators)

    run(test)


# Where to


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "//127.0.0.1/", "http://", "http://u:p@127.0.0.1/", "x",
        "",         "http://[", "http://[::1", "http://[1:2]/", "http://[::1]x/",
        "http://h:0/", "http://h:65536/", "http://h/a b", "http://h\r\nx: y/", "HTTP://h/",
        "http://h/" + "x" * 2048,
    ],
)  # fmt: skip
def test_only_http_urls_without_credentials_are_fetched(uri: str) -> None:
    async def test() -> None:
        assert await error_of(RemoteKeys(uri)) == NOT_HTTP

    run(test)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("http://127.0.0.1:1/", "cannot connect: Connection refused"),
        ("http://" + "x" * 64 + "/", "the host's name cannot be resolved"),
        ("http://169.254.169.254/", "the address is link-local, a cloud's metadata, or nobody's"),
        ("https://[fe80::1]/", "the address is link-local, a cloud's metadata, or nobody's"),
        ("http://2852039166/", "the address is link-local, a cloud's metadata, or nobody's"),  # 169.254.169.254
        ("http://0xa9fea9fe/", "the address is link-local, a cloud's metadata, or nobody's"),
        ("http://0/", "the address is link-local, a cloud's metadata, or nobody's"),
        ("http://192.0.2.1/", "http without TLS goes to this machine only, unless `insecureHttp` allows it"),
    ],
)
def test_what_cannot_be_connected_to_is_said(uri: str, error: str) -> None:
    async def test() -> None:
        assert await error_of(RemoteKeys(uri)) == error

    run(test)


def test_addresses_are_what_the_configuration_allows() -> None:
    async def test() -> None:
        loopback, other = ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")
        async with raw(answer()) as server:
            source = RemoteKeys(server.uri)
            assert await error_of(source, Access(blocked=(loopback,))) == "the address is blocked by configuration"
            only = "the address is none of the configured ones"
            assert await error_of(source, Access(addresses=(other,))) == only
            assert server.requests == []
            assert kids(await fetch(source, Access(addresses=(loopback,), blocked=(other,)))) == KIDS

    run(test)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    test_a_key_set_is_fetched_and_nothing_but_what_is_needed_is_said()


def test_a_configured_proxy_is_used_for_http_and_https(tmp_path: Path) -> None:
    async def test() -> None:
        own = certificate("idp.test", tmp_path)
        async with proxy() as between, raw(answer()) as server, raw(answer(), tls=own.context()) as secure:
            way = Access(
                proxy=f"http://127.0.0.1:{between.port}", ca_file=own.certificate, blocked=(ip_network("127.0.0.0/8"),)
            )
            source = RemoteKeys(f"https://idp.test:{secure.port}/")
            assert kids(await fetch(source, way)) == KIDS  # only the proxy knows that name
            assert between.requests[0].startswith(f"CONNECT idp.test:{secure.port} ")
            refused = "http without TLS goes through no proxy, unless `insecureHttp` allows it"
            assert await error_of(RemoteKeys(server.uri), way) == refused
            plain = Access(proxy=way.proxy, insecure_http=True)
            assert kids(await fetch(RemoteKeys(server.uri), plain)) == KIDS
            assert between.requests[1].startswith(f"GET {server.uri} ")
            metadata = "the address is link-local, a cloud's metadata, or nobody's"
            assert await error_of(RemoteKeys("https://169.254.169.254/"), way) == metadata
            assert len(between.requests) == 2

    run(test)


def test_a_proxy_that_refuses_or_is_gone_is_said() -> None:
    async def test() -> None:
        async with raw(answer(b"", status="407 Proxy Authentication Required")) as between:
            way = Access(proxy=f"http://127.0.0.1:{between.port}")
            assert await error_of(RemoteKeys("https://idp.test/"), way) == "the proxy refuses"
        error = "cannot connect: Connection refused"
        assert await error_of(RemoteKeys("https://idp.test/"), Access(proxy="http://127.0.0.1:1")) == error

    run(test)


# TLS


def test_tls_is_verified_against_the_trusted_authorities_and_the_name(tmp_path: Path) -> None:
    localhost, other = certificate("localhost", tmp_path), certificate("other.test", tmp_path)
    expired = certificate("localhost", tmp_path / ".", days=-1)
    own = certificate("localhost", tmp_path)

    async def outcome(context: ssl.SSLContext, ca_file: Path | None) -> str:
        async with raw(answer(), tls=context) as server:
            try:
                await fetch(RemoteKeys(f"https://localhost:{server.port}/"), Access(ca_file=ca_file))
            except FetchError as error:
                return str(error)
            return ""

    async def test() -> None:
        assert await outcome(own.context(), own.certificate) == ""
        assert await outcome(own.context(ssl.TLSVersion.TLSv1_2), own.certificate) == ""
        assert trust(None).minimum_version == trust(own.certificate).minimum_version == ssl.TLSVersion.TLSv1_2
        untrusted = "the certificate is not trusted: self-signed certificate"
        assert await outcome(own.context(), None) == untrusted
        assert await outcome(own.context(), other.certificate) == untrusted
        assert "Hostname mismatch" in await outcome(other.context(), other.certificate)
        assert await outcome(own.context(), tmp_path / "no.pem") == f"the CA file {tmp_path / 'no.pem'} cannot be used"
        (tmp_path / "odd.pem").write_text("odd")
        assert "cannot be used" in await outcome(own.context(), tmp_path / "odd.pem")
        async with raw(answer(), eager=True) as plain:
            source = RemoteKeys(f"https://localhost:{plain.port}/")
            assert await error_of(source, Access(ca_file=own.certificate)) == "no TLS connection"

    assert expired.certificate == localhost.certificate == own.certificate
    run(test)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        own = certificate("localhost", tmp_path, days=-1)
        async with raw(answer(), tls=own.context()) as server:
            source = RemoteKeys(f"https://localhost:{server.port}/")
            expired = "the certificate is not trusted: certificate has expired"
            assert await error_of(source, Access(ca_file=own.certificate)) == expired

    run(test)


# Discovery


async def discover(configuration: object, body: bytes | None = None) -> str:
    """What comes of an OpenID configuration; `%` in it is the issuer's own address."""
    paths: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        paths.append(path)
        text = json.dumps(configuration).replace("%", base).encode() if body is None else body
        known = {"/.well-known/openid-configuration": answer(text), "/keys": answer()}
        writer.write(known.get(path, answer(b"", status="404 Not Found")))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    source = RemoteKeys(f"{base}/.well-known/openid-configuration", discover=True)
    try:
        fetched = await fetch(source, Access())
    except FetchError as error:
        return str(error)
    finally:
        server.close()
    assert kids(fetched) == KIDS
    assert paths == ["/.well-known/openid-configuration", "/keys"]
    return ""


@pytest.mark.parametrize("issuer", ["%", "%/"])
def test_an_issuer_may_say_itself_where_its_keys_are(issuer: str) -> None:
    async def test() -> None:
        assert await discover({"issuer": issuer, "jwks_uri": "%/keys"}) == ""

    run(test)


@pytest.mark.parametrize(
    ("configuration", "error"),
    [
        ({"issuer": "%"}, "the OpenID configuration has no jwks_uri"),
        ({"issuer": "%", "jwks_uri": 5}, "the OpenID configuration has no jwks_uri"),
        (["jwks_uri"], "the OpenID configuration is no object"),
        ({"jwks_uri": "%/keys"}, "the OpenID configuration is of another issuer"),
        ({"issuer": "%/other", "jwks_uri": "%/keys"}, "the OpenID configuration is of another issuer"),
        ({"issuer": "%//", "jwks_uri": "%/keys"}, "the OpenID configuration is of another issuer"),
        ({"issuer": "%", "jwks_uri": "file:///etc/passwd"}, NOT_HTTP),
        ({"issuer": "%", "jwks_uri": "http://169.254.169.254/"}, "the address is link-local"),
        ({"issuer": "%", "jwks_uri": "%/elsewhere"}, "status 404"),
    ],
)
def test_a_configuration_that_leads_to_no_keys_is_a_failure_that_is_said(configuration: object, error: str) -> None:
    async def test() -> None:
        assert (await discover(configuration)).startswith(error)

    run(test)


def test_a_configuration_that_is_no_json_is_a_failure() -> None:
    async def test() -> None:
        assert await discover({}, b"<html>") == "the OpenID configuration is not JSON"

    run(test)


def test_a_configuration_behind_tls_leads_nowhere_without(tmp_path: Path) -> None:
    async def test() -> None:
        own = certificate("localhost", tmp_path)
        async with raw(tls=own.context()) as server:
            base = f"https://localhost:{server.port}"
            server.octets = [answer(json.dumps({"issuer": base, "jwks_uri": "http://localhost/keys"}).encode())]
            source = RemoteKeys(f"{base}/.well-known/openid-configuration", discover=True)
            error = "the OpenID configuration leads from https to http"
            assert await error_of(source, Access(ca_file=own.certificate)) == error

    run(test)
