"""Where to listen: what is an address, what may be in its place, who may use it."""

import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest
from countersign.edge.addresses import (
    AddressError,
    TcpAddress,
    UnixAddress,
    of_worker,
    parse_address,
    prepare_socket,
    restrict_socket,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/authz.sock", UnixAddress("/run/authz.sock")),
        ("127.0.0.1:9191", TcpAddress("127.0.0.1", 9191)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:9191", TcpAddress("::1", 9191)),
    ],
)
def test_an_address_is_a_unix_socket_or_host_and_port(text: str, address: object) -> None:
    assert parse_address(text) == address
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither unix:/path nor host:port"),
        ("9191", "neither unix:/path nor host:port"),
        ("127.0.0.1", "neither unix:/path nor host:port"),
        ("127.0.0.1:65536", "neither unix:/path nor host:port"),
        ("127.0.0.1:http", "neither unix:/path nor host:port"),
        ("::1:9191", "neither unix:/path nor host:port"),
        ("127.0.0.1:9191\n", "neither unix:/path nor host:port"),
        ("unix:authz.sock", "absolute path"),
        ("unix:/" + "x" * 107, "107 bytes at most"),
        ("unix:/caf\udce9.sock", "a socket path is UTF-8"),
    ],
)
def test_anything_else_is_refused_with_what_was_wanted(text: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert TcpAddress(host, 1).is_loopback is loopback


def test_a_free_path_is_ready(tmp_path: Path) -> None:
    prepare_socket(UnixAddress(str(tmp_path / "a.sock")))


def test_a_socket_that_nobody_serves_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))

    prepare_socket(UnixAddress(str(path)))

    assert not path.exists()


def test_a_socket_that_somebody_serves_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with closing(socket.socket(socket.AF_UNIX)) as alive:
        alive.bind(str(path))
        alive.listen()

        with pytest.raises(FileExistsError, match="another process serves"):
            prepare_socket(UnixAddress(str(path)))

    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.sock"
    (tmp_path / "precious").write_text("data")
    match kind:
        case "file":
            path.write_text("data")
        case "link":
            path.symlink_to(tmp_path / "precious")
        case _:
            path.mkdir()

    with pytest.raises(FileExistsError, match="is no socket"):
        prepare_socket(UnixAddress(str(path)))

    assert path.exists()
    assert (tmp_path / "precious").read_text() == "data"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no directory"):
        prepare_socket(UnixAddress(str(tmp_path / "nowhere" / "a.sock")))


def test_a_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(str(path))
        restrict_socket(UnixAddress(str(path)))

        assert stat.S_IMODE(path.stat().st_mode) == 0o660


@pytest.mark.parametrize(
    ("address", "number", "own"),
    [
        ("unix:/run/authz.sock", 0, "unix:/run/authz-0.sock"),
        ("unix:/run/authz.sock", 12, "unix:/run/authz-12.sock"),
        ("unix:/run/a.b/authz", 1, "unix:/run/a.b/authz-1"),
        ("127.0.0.1:9191", 0, "127.0.0.1:9191"),
        ("[::1]:9191", 3, "[::1]:9194"),
        ("127.0.0.1:65534", 1, "127.0.0.1:65535"),
    ],
)
def test_each_worker_has_an_address_of_its_own(address: str, number: int, own: str) -> None:
    assert str(of_worker(parse_address(address), number)) == own


@pytest.mark.parametrize(("address", "number"), [("127.0.0.1:65535", 1), ("127.0.0.1:0", 0), (f"unix:/{'a' * 105}", 1)])
def test_a_worker_that_would_have_no_address_is_refused(address: str, number: int) -> None:
    with pytest.raises(AddressError):
        of_worker(parse_address(address), number)
