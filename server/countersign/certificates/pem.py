"""PEM text to the DER of its certificates: the whole text, or none of it.

Source: RFC 7468 sections 2, 3 and 5 (strict form).
"""

import base64
import binascii
import re
from typing import Final

from countersign.certificates.read import MAX_DER, CertificateError

MAX_CERTIFICATES: Final = 16  # of one text; a chain has two or three
MAX_TEXT: Final = MAX_CERTIFICATES * MAX_DER * 2

_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----\s*\n([A-Za-z0-9+/=\s]*)-----END ([A-Z0-9 ]{1,40})-----")
_LABEL: Final = "CERTIFICATE"


def read_pem(text: str) -> tuple[bytes, ...]:
    """The DER of every certificate, in the order of the text; at least one. Raise `CertificateError`.

    Words between the blocks are allowed, as `openssl` writes them (RFC 7468 2: explanatory text); other kinds of
    block are not, so that nothing is passed over that was meant.
    """
    if len(text) > MAX_TEXT:
        raise CertificateError(f"longer than {MAX_TEXT} characters")
    found: list[bytes] = []
    end = 0
    for block in _BLOCK.finditer(text):
        _refuse_halves(text[end : block.start()])
        end = block.end()
        begun, content, ended = block.groups()
        if begun != ended or begun != _LABEL:
            raise CertificateError(f"a PEM block `{begun}` where only `{_LABEL}` is wanted")
        if len(found) == MAX_CERTIFICATES:
            raise CertificateError(f"more than {MAX_CERTIFICATES} certificates")
        found.append(_octets("".join(content.split())))
    _refuse_halves(text[end:])
    if not found:
        raise CertificateError("no PEM block `CERTIFICATE`")
    return tuple(found)


def _refuse_halves(between: str) -> None:
    if "-----BEGIN" in between or "-----END" in between:
        raise CertificateError("a PEM block that does not begin, or does not end, or is not base64")


def _octets(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CertificateError("a PEM block that is not base64") from error
