"""A request that somebody describes in JSON, field by field: the fields are the flags of `countersign explain`.

What a field may say is decided where the flags are read too. Nothing here names a file.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from countersign.certificates.pem import read_pem
from countersign.certificates.read import CertificateError
from countersign.explanation.described import Description, ip, port
from countersign.explanation.described_peer import DescriptionError
from countersign.policy.problems import did_you_mean

TO: Final = "to"
_TEXTS: Final = ("method", "path", "as", "certificate", TO, "host", "token", "source-ip", "destination-ip", "sni")
_LINES: Final = ("header", "context")
_FIELDS: Final = (*_TEXTS, *_LINES, "port", "tcp")
_SHOWN: Final = 64  # characters of a name that is none

_T = TypeVar("_T")


def description(fields: Mapping[str, Any]) -> Description:
    """What the fields say of a request, ``to`` excepted. Raise `DescriptionError`; a value is never repeated."""
    for name in fields:
        if name not in _FIELDS:
            raise DescriptionError(f"no such field; {did_you_mean(name, (*_FIELDS, 'attributes'))}", name[:_SHOWN])
    texts = {name: _typed(fields, name, str, "a text") for name in _TEXTS if name in fields}
    lines = {name: _lines(fields, name) for name in _LINES if name in fields}
    tcp = _typed(fields, "tcp", bool, "true or false") if "tcp" in fields else False
    number = _typed(fields, "port", int, "a number") if "port" in fields else None
    for name in () if tcp else ("method", "path"):
        if name not in texts:
            raise DescriptionError("is missing: wants method and path, or a CheckRequest with `attributes`", name)
    return Description(
        method=texts.get("method", ""),
        path=texts.get("path", ""),
        tcp=tcp,
        as_=texts.get("as"),
        certificate=_certificate(texts["certificate"]) if "certificate" in texts else None,
        context=lines.get("context", []),
        host=texts.get("host", ""),
        headers=lines.get("header", []),
        token=texts.get("token", ""),
        port=0 if number is None else _read(port, "port", str(number)),
        source_ip=_read(ip, "source-ip", texts["source-ip"]) if "source-ip" in texts else "",
        destination_ip=_read(ip, "destination-ip", texts["destination-ip"]) if "destination-ip" in texts else "",
        sni=texts.get("sni", ""),
    )


def _typed(fields: Mapping[str, Any], name: str, kind: type[_T], wanted: str) -> _T:
    value = fields[name]
    if type(value) is not kind:  # True is an int
        raise DescriptionError(f"wants {wanted}", name)
    return value


def _lines(fields: Mapping[str, Any], name: str) -> list[str]:
    lines = _typed(fields, name, list, "an array of texts")
    if not all(isinstance(line, str) for line in lines):
        raise DescriptionError("wants an array of texts", name)
    return lines


def _read(read: Callable[[str], _T], name: str, text: str) -> _T:
    try:
        return read(text)
    except ValueError as error:
        raise DescriptionError(str(error), name) from error


def _certificate(text: str) -> bytes:
    try:
        return read_pem(text)[0]
    except CertificateError as error:
        raise DescriptionError(str(error), "certificate") from error
