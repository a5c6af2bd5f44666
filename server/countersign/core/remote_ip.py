"""The address of the client, before the proxies that are trusted to speak for it.

Envoy does not send the address it has worked out itself (``remote.ip`` in Istio), so it is worked out again, the way
Envoy does: entry number N + 1 from the right of x-forwarded-for for N trusted hops, Envoy having appended its own
peer. Exact in every topology is a header in which Envoy writes its own result.
Source: Envoy's x-forwarded-for documentation, Utility::getLastAddressFromXFF; CustomHeaderIPDetection::detect.
"""

from ipaddress import ip_address
from typing import Final

from countersign.core.facts import RequestFacts
from countersign.core.posture import Posture

_XFF: Final = "x-forwarded-for"


def remote_ip(facts: RequestFacts, hops: int, header: str, posture: Posture) -> str:
    """The address as text; empty or garbage if what should say it does not.

    ``header`` is the (lower-case) name of the header that Envoy overwrites with its result, ``hops`` the number of
    trusted proxies in front of Envoy. Without either it is the connection's address. What is no address, or a header
    that is not there just once, is kept for a strict reader, who cannot read it; Envoy reads the header's first line,
    and where it finds no address takes the connection's.
    """
    if facts.http is None or not (hops or header):
        return facts.source.address
    if header:
        lines = facts.http.headers.values(header)
        if posture is Posture.ISTIO:
            first = lines[0].strip() if lines else ""
            return first if _is_address(first) else facts.source.address
        return lines[0].strip() if len(lines) == 1 else ""
    entries = [entry.strip() for line in facts.http.headers.values(_XFF) for entry in line.split(",")]
    if len(entries) <= hops:
        return facts.source.address
    entry = entries[-1 - hops]
    return facts.source.address if posture is Posture.ISTIO and not _is_address(entry) else entry


def headers_read(hops: int, header: str) -> frozenset[str]:
    """The names of the headers that `remote_ip` looks at."""
    return frozenset({header} if header else {_XFF} if hops else ())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
