"""Which transport serves which address, and that everything works without the native one."""

import asyncio
import logging
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from countersign.edge.addresses import Address, TcpAddress, UnixAddress
from countersign.edge.grpc_server import GrpcServer
from countersign.edge.native_server import NativeServer
from countersign.edge.server import Server
from countersign.edge.servers import Servers
from countersign.edge.transport import Choice, Transport, TransportError, choose, make_server, native_obstacle

from tests.edge.serving import Answering, Serving, call, health, reason, request, snapshot

UNIX = UnixAddress("/run/authz.sock")
LOOPBACK = TcpAddress("127.0.0.1", 9191)
ANYWHERE = TcpAddress("0.0.0.0", 9191)


def no_obstacle() -> str:
    return ""


def not_installed() -> str:
    return "pygrpc-native is not installed"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (UNIX, Choice(Transport.NATIVE, "a unix socket")),
        (LOOPBACK, Choice(Transport.NATIVE, "loopback")),
        (TcpAddress("::1", 1), Choice(Transport.NATIVE, "loopback")),
        (TcpAddress("localhost", 1), Choice(Transport.NATIVE, "loopback")),
        (ANYWHERE, Choice(Transport.GRPCIO, "pygrpc-native is for a unix socket or loopback")),
        (TcpAddress("10.0.0.1", 1), Choice(Transport.GRPCIO, "pygrpc-native is for a unix socket or loopback")),
    ],
)
def test_auto_is_native_where_only_this_machine_can_reach(address: Address, expected: Choice) -> None:
    assert choose(Transport.AUTO, address, no_obstacle) == expected


def test_auto_is_grpcio_where_native_cannot_be() -> None:
    assert choose(Transport.AUTO, UNIX, not_installed) == Choice(Transport.GRPCIO, "pygrpc-native is not installed")


@pytest.mark.parametrize("address", [UNIX, LOOPBACK, ANYWHERE])
def test_grpcio_is_grpcio_everywhere(address: Address) -> None:
    assert choose(Transport.GRPCIO, address, no_obstacle) == Choice(Transport.GRPCIO, "asked for")


@pytest.mark.parametrize("address", [UNIX, LOOPBACK, ANYWHERE])
def test_tls_is_grpcio_and_native_says_that_it_has_none(address: Address) -> None:
    assert choose(Transport.AUTO, address, no_obstacle, tls=True) == Choice(
        Transport.GRPCIO, "pygrpc-native has no TLS"
    )
    assert choose(Transport.GRPCIO, address, no_obstacle, tls=True).transport is Transport.GRPCIO
    with pytest.raises(TransportError, match="pygrpc-native has no TLS; say auto or grpcio"):
        choose(Transport.NATIVE, address, no_obstacle, tls=True)


def test_native_that_cannot_be_is_an_error_that_says_what_to_do() -> None:
    assert choose(Transport.NATIVE, UNIX, no_obstacle) == Choice(Transport.NATIVE, "asked for")
    with pytest.raises(TransportError, match=r"unix:/run/authz\.sock: pygrpc-native is not installed; say auto or"):
        choose(Transport.NATIVE, UNIX, not_installed)
    with pytest.raises(TransportError, match=r"0\.0\.0\.0:9191: pygrpc-native is for a unix socket or loopback"):
        choose(Transport.NATIVE, ANYWHERE, no_obstacle)


def test_a_package_that_is_absent_or_cannot_be_loaded_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_obstacle() == ""
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)

    assert native_obstacle() == "pygrpc-native is not installed"


def test_a_machine_that_cannot_reserve_what_a_prefix_claims_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The front aborts the process where an allocation of the claimed length fails: grpcio refuses the length."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)

    assert "4 GiB" in native_obstacle()


def _made(addresses: list[Address], obstacle: Callable[[], str]) -> Server:
    async def made() -> Server:
        return make_server(Answering(lambda _, __: b""), addresses, Transport.AUTO, obstacle)

    return asyncio.run(made())


def test_what_was_chosen_and_why_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    assert isinstance(_made([UNIX, ANYWHERE], no_obstacle), Servers)
    assert [record.getMessage() for record in caplog.records] == [
        "unix:/run/authz.sock is served by native: a unix socket",
        "0.0.0.0:9191 is served by grpcio: pygrpc-native is for a unix socket or loopback",
    ]


def test_one_address_is_served_by_one_server() -> None:
    assert isinstance(_made([UNIX], no_obstacle), NativeServer)
    assert isinstance(_made([UNIX], not_installed), GrpcServer)


def test_without_the_package_checks_are_answered_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = snapshot()
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    monkeypatch.delitem(sys.modules, "countersign.edge.native_server")
    monkeypatch.delitem(sys.modules, "countersign.edge.native_health")

    with Serving(tmp_path, lambda: current, transport=Transport.AUTO) as serving:
        assert reason(serving.check(request())) == "allow-rule-matched"
        assert reason(serving.check(request(method="PUT"))) == "no-allow-rule-matched"
        assert health(serving.address) == "SERVING"


def test_one_process_serves_addresses_of_both_transports(tmp_path: Path) -> None:
    current = snapshot()
    second = UnixAddress(str(tmp_path / "b.sock"))

    def obstacle_at_times() -> str:
        return next(obstacles)

    obstacles = iter(["", "a reason"])
    with Serving(
        tmp_path,
        lambda: current,
        make=lambda authorizer, addresses: make_server(
            authorizer, [*addresses, second], Transport.AUTO, obstacle_at_times
        ),
    ) as serving:
        for address in (serving.address, second):
            assert reason(call(address, request().SerializeToString())) == "allow-rule-matched"
            assert health(address) == "SERVING"
