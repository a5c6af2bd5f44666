"""Where to listen: a unix socket or host:port."""

import ipaddress
import os
import re
import socket
import stat
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from countersign.core.facts import is_readable

_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_MAX_PORT: Final = 65535
_MAX_SOCKET_PATH: Final = 107  # sun_path of Linux, less its NUL
_SOCKET_MODE: Final = 0o660  # the owner and one group: Envoy's
_CONNECT_SECONDS: Final = 0.5


class AddressError(ValueError):
    """The text is no address that can be listened on."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port; an IPv6 ``host`` carries no brackets."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Read ``unix:/path`` or ``host:port``. Raise `AddressError` for anything else."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise AddressError(
                f"`{text}`: a unix socket wants an absolute path, such as unix:/run/countersign/authz.sock"
            )
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise AddressError(f"`{text}`: a socket path may have {_MAX_SOCKET_PATH} bytes at most")
        if not is_readable(path):
            raise AddressError(f"`{text}`: a socket path is UTF-8 here, and this one has other octets")
        return UnixAddress(path)
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match[2]) > _MAX_PORT:
        raise AddressError(f"`{text}` is neither unix:/path nor host:port, such as 127.0.0.1:9191")
    return TcpAddress(match[1].strip("[]"), int(match[2]))


def of_worker(address: Address, number: int) -> Address:
    """The address of a worker, counted from 0: `authz.sock` becomes `authz-0.sock`, a port the next ones.

    Raise `AddressError` where there is none.
    """
    if isinstance(address, UnixAddress):
        path = Path(address.path)
        return parse_address(f"unix:{path.with_name(f'{path.stem}-{number}{path.suffix}')}")
    if not address.port:
        raise AddressError(f"`{address}`: port 0 is any free one, and has no next one")
    if address.port + number > _MAX_PORT:
        raise AddressError(f"`{address}`: there is no port {address.port + number}")
    return TcpAddress(address.host, address.port + number)


def prepare_socket(address: UnixAddress) -> None:
    """Make way for a unix socket: remove one that nobody serves. Raise OSError for anything else in its place."""
    path = Path(address.path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no directory: make it before listening on {address}")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"{path} is there and is no socket: remove it or listen elsewhere")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError(f"another process serves {path}: stop it or listen elsewhere")


def restrict_socket(address: UnixAddress) -> None:
    """Leave a bound socket to its owner and group."""
    Path(address.path).chmod(_SOCKET_MODE)
