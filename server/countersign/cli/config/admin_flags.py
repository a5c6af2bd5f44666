"""The flags about the admin API."""

import argparse
from typing import Final

from countersign.edge.addresses import AddressError, TcpAddress, parse_address

DEFAULT_ADMIN: Final = TcpAddress("127.0.0.1", 8181)
OFF: Final = "off"


def add_admin_flags(parser: argparse.ArgumentParser) -> None:
    """Where it listens."""
    add = parser.add_argument
    add(
        "--admin",
        metavar="HOST:PORT|off",
        type=_admin,
        default=DEFAULT_ADMIN,
        help="the admin API over HTTP, read-only (default: %(default)s)",
    )
    add("--insecure-admin", action="store_true", help="allow --admin on other machines' reach; it knows no passwords")


def admin_of(arguments: argparse.Namespace) -> TcpAddress | None:
    """What the flags say; None if there is to be none."""
    return None if arguments.admin == OFF else arguments.admin


def _admin(text: str) -> TcpAddress | str:
    if text == OFF:
        return OFF
    try:
        address = parse_address(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not isinstance(address, TcpAddress):
        raise argparse.ArgumentTypeError(f"`{text}` is neither host:port, such as {DEFAULT_ADMIN}, nor {OFF}")
    return address
