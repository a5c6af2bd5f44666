"""Certificates in files, as people have them: PEM, or the DER of one."""

import sys
from pathlib import Path
from typing import Final

from countersign.certificates.pem import MAX_TEXT, read_pem
from countersign.certificates.read import CertificateError

_DER: Final = b"\x30"  # an ASN.1 SEQUENCE; PEM is text


def read_certificates(file: str) -> tuple[bytes, ...]:
    """The DER of a file's certificates; ``-`` is standard input. Raise `CertificateError` or OSError."""
    if file == "-":
        octets = sys.stdin.buffer.read(MAX_TEXT + 1)
    else:
        with Path(file).open("rb") as stream:
            octets = stream.read(MAX_TEXT + 1)
    if octets.startswith(_DER):
        return (octets,)
    try:
        return read_pem(octets.decode("ascii"))
    except UnicodeDecodeError as error:
        raise CertificateError(f"{file}: neither PEM nor DER: octet {error.start} is not ASCII") from error
    except CertificateError as error:
        raise CertificateError(f"{file}: {error}; wants PEM, or the DER of one certificate") from error
