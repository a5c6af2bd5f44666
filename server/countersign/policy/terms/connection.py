"""Attributes of the connection: addresses, ports, server name, and the metadata of other Envoy filters.

Source: Istio pilot/pkg/security/authz/model; Envoy's RBAC (direct_remote_ip, remote_ip, destination_ip, ...).
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from countersign.core.posture import Posture
from countersign.policy.match import Outcome, address_readings, agree, network, wildcard, wildcards
from countersign.policy.resources import Term
from countersign.policy.terms.evidence import ABSENT, Attribute, Context, Evidence, Judge, matched

_MAX_PORT: Final = 65535
_PORT: Final = re.compile(r"[0-9]{1,5}")
_METADATA: Final = "envoy.filters."


def _address(read: Callable[[Evidence], str]) -> Attribute:
    def prepare(term: Term, context: Context) -> Judge:
        blocks = [network(value) for value in term.values]
        as_sent = context.posture is Posture.ISTIO

        def judge(evidence: Evidence) -> Outcome:
            try:
                readings = address_readings(read(evidence))
            except ValueError:  # Envoy: an address that is no IP is in no range
                return Outcome.NO_MATCH if as_sent else Outcome.UNREADABLE
            inside = [any(address in block for block in blocks) for address in readings]
            return matched(inside[0]) if as_sent else agree(inside)

        return judge

    return Attribute(prepare=prepare, got=lambda _, evidence: read(evidence) or ABSENT, check=_check_network)


def _port(term: Term, context: Context) -> Judge:
    ports = frozenset(int(value) for value in term.values)

    def judge(evidence: Evidence) -> Outcome:
        port = evidence.facts.destination.port
        if not port and context.posture is Posture.STRICT:
            return Outcome.UNREADABLE
        return matched(port in ports)

    return judge


def _sni(term: Term, _: Context) -> Judge:
    """In every posture unreadable where Envoy does not say it: its own filters would know."""
    test = wildcards(term.values)

    def judge(evidence: Evidence) -> Outcome:
        sni = evidence.facts.sni
        return Outcome.UNREADABLE if sni is None else matched(test(sni))

    return judge


def _metadata(term: Term, _: Context) -> Judge:
    """``[v]`` is a list with an element that matches v; without brackets the value is a string.

    Istio trims every bracket from the ends of ``[v]``, however many.
    """
    texts = [wildcard(value) for value in term.values if not _is_list_value(value)]
    elements = [wildcard(value.strip("[]")) for value in term.values if _is_list_value(value)]

    def judge(evidence: Evidence) -> Outcome:
        found = _metadata_at(term, evidence)
        if isinstance(found, str):
            return matched(any(test(found) for test in texts))
        listed = found if isinstance(found, Sequence) else ()
        return matched(any(isinstance(each, str) and test(each) for each in listed for test in elements))

    return judge


def _is_list_value(value: str) -> bool:
    return value.startswith("[") and value.endswith("]")


def _metadata_at(term: Term, evidence: Evidence) -> Any:  # noqa: ANN401 (any value of a protobuf Struct)
    namespace, key = term.argument
    filter_metadata = evidence.facts.metadata.get(_METADATA + namespace)
    return filter_metadata[key] if filter_metadata is not None and key in filter_metadata else None


def _got_metadata(term: Term, evidence: Evidence) -> str:
    found = _metadata_at(term, evidence)
    return ABSENT if found is None else str(found)


def _check_network(value: str) -> str:
    try:
        network(value)
    except ValueError:
        return "not an IP address or CIDR block"
    return ""


def _check_port(value: str) -> str:
    sound = _PORT.fullmatch(value) is not None and int(value) <= _MAX_PORT
    return "" if sound else "not a port, 0 to 65535"


SOURCE_IP: Final = _address(lambda evidence: evidence.facts.source.address)
REMOTE_IP: Final = _address(lambda evidence: evidence.remote_ip)
DESTINATION_IP: Final = _address(lambda evidence: evidence.facts.destination.address)
DESTINATION_PORT: Final = Attribute(
    prepare=_port, got=lambda _, evidence: str(evidence.facts.destination.port or ABSENT), check=_check_port
)
SNI: Final = Attribute(prepare=_sni, got=lambda _, evidence: evidence.facts.sni or ABSENT)
METADATA: Final = Attribute(prepare=_metadata, got=_got_metadata, takes_argument=True)
