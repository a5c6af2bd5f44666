"""The flags and words that describe a request."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from countersign.certificates.read import CertificateError
from countersign.cli.certificate_file import read_certificates
from countersign.explanation.described import Description, ip, port
from countersign.explanation.described_peer import DescriptionError

_MAX_FILE: Final = 64 * 1024  # characters of a token or of claims

# Flags and words that describe a request, by their names in the parsed arguments.
_DESCRIBING: Final = {
    "words": "METHOD PATH",
    "tcp": "--tcp",
    "as_": "--as",
    "certificate": "--certificate",
    "plaintext": "--plaintext",
    "to": "--to",
    "context": "--context",
    "host": "--host",
    "header": "--header",
    "token": "--token",
    "port": "--port",
    "source_ip": "--source-ip",
    "destination_ip": "--destination-ip",
    "sni": "--sni",
}

_T = TypeVar("_T")


def add_request_flags(parser: argparse.ArgumentParser) -> None:
    """The words and flags of a request."""
    add = parser.add_argument
    add("words", nargs="*", metavar="METHOD PATH", help="the request, side by side, such as GET /headers")
    add("--tcp", action="store_true", help="in place of METHOD PATH: a connection without HTTP")
    peer = parser.add_mutually_exclusive_group()
    peer.add_argument("--as", dest="as_", metavar="ID", help="the peer: spiffe://cluster.local/ns/apps/sa/sleep")
    peer.add_argument("--certificate", metavar="FILE", help="the peer by its certificate, PEM or DER")
    peer.add_argument("--plaintext", action="store_true", help="no client certificate (the default)")
    add("--to", metavar="NS/APP", help="the workload: its namespace, and its label app=APP (more with --label)")
    add("--context", metavar="K=V", action="append", default=[], help="of the route's context_extensions; repeatable")
    add("--host", metavar="HOST", default="", help="the host, with its port if the client writes one")
    add("--header", metavar="'NAME: VALUE'", action="append", default=[], help="a header line; repeatable")
    add("--port", metavar="N", type=_of_flag(port), default=0, help="the workload's port")
    add("--source-ip", metavar="IP", type=_of_flag(ip), help="the address of the peer")
    add("--destination-ip", metavar="IP", type=_of_flag(ip), help="the address of the workload")
    add("--sni", metavar="NAME", default="", help="the server name of the TLS handshake")


def refuse_description(arguments: argparse.Namespace, instead: str) -> None:
    """Raise `DescriptionError` if anything describes a request beside the one that ``instead`` gives."""
    for name, flag in _DESCRIBING.items():
        if getattr(arguments, name):
            raise DescriptionError(f"{flag}: {instead} says what the request is")


def description(arguments: argparse.Namespace) -> Description:
    """What the flags say. Raise `DescriptionError` or OSError."""
    if arguments.tcp and arguments.claims:
        raise DescriptionError("--tcp is a connection without HTTP", "claims")
    words = arguments.words
    if len(words) != 2 and not (arguments.tcp and not words):  # noqa: PLR2004 (METHOD and PATH)
        raise DescriptionError("wants METHOD and PATH, such as GET /headers, or --request FILE")
    method, path = words or ("", "")
    return Description(
        method=method,
        path=path,
        tcp=arguments.tcp,
        as_=arguments.as_,
        certificate=None if arguments.certificate is None else _certificate(arguments.certificate),
        context=arguments.context,
        host=arguments.host,
        headers=arguments.header,
        token=text_or_file("--token", arguments.token) if arguments.token is not None else "",
        port=arguments.port,
        source_ip=arguments.source_ip or "",
        destination_ip=arguments.destination_ip or "",
        sni=arguments.sni,
    )


def text_or_file(flag: str, text: str) -> str:
    """The text itself, or of ``@FILE`` what the file says. Raise `DescriptionError` or OSError."""
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        with path.open(encoding="utf-8") as file:
            content = file.read(_MAX_FILE + 1)
    except UnicodeDecodeError as error:
        raise DescriptionError(f"{flag} {text}: not UTF-8 at byte {error.start}") from error
    if len(content) > _MAX_FILE:
        raise DescriptionError(f"{flag} {text}: longer than {_MAX_FILE} characters")
    return content.strip()


def _certificate(file: str) -> bytes:
    try:
        return read_certificates(file)[0]
    except CertificateError as error:
        raise DescriptionError(str(error), "certificate") from error


def _of_flag(read: Callable[[str], _T]) -> Callable[[str], _T]:
    def of_flag(text: str) -> _T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return of_flag
