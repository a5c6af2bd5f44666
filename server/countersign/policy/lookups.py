"""How an attribute is looked up: under which texts a term is filed, and which texts a request has.

A text that ends in `*` is a prefix, one that begins with it a suffix, as in policies. Both sides agree that a request
with none of a term's texts has the outcome NO_MATCH; None on the request's side means that it cannot be read.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from countersign.core import hosts, paths
from countersign.core.facts import is_readable
from countersign.policy.match import address_readings, expand_trust_domain, network
from countersign.policy.resources import Term
from countersign.policy.terms.evidence import Evidence
from countersign.policy.terms.templates import is_template

Texts = tuple[str, ...]
Lookup = Callable[[Evidence], Texts | None]

_AMBIGUOUS: Final = frozenset(", \t")


def filed_under(term: Term, trust_domains: Texts) -> Texts | None:
    """The texts to file a term under; None if it cannot be looked up, because it is negated or takes anything."""
    if term.negated or term.attribute not in LOOKUPS:
        return None
    texts = [text for value in term.values for text in _texts(term.attribute, value, trust_domains)]
    return None if "*" in texts or not texts else tuple(dict.fromkeys(texts))


def _texts(attribute: str, value: str, trust_domains: Texts) -> Texts:
    if attribute == "source.principal":
        return expand_trust_domain(value, trust_domains)
    file = _FILES.get(attribute)
    return (value if file is None else file(value),)


def _namespace_text(value: str) -> str:
    return "*" if "*" in value or "/" in value else value


def _path_text(value: str) -> str:
    """A template is filed under what it begins with."""
    return value.partition("{")[0] + "*" if is_template(value) else value


def _block_text(value: str) -> str:
    block = network(value)
    return _bits(block.network_address)[: block.prefixlen + 1] + "*"


def _bits(address: IPv4Address | IPv6Address) -> str:
    """The version and every bit, so that a block is a prefix of its addresses."""
    return f"{address.version}{int(address):0{address.max_prefixlen}b}"


def _issuer_and_subject(value: str) -> str:
    """Both halves, of which only one can have the ``*`` that counts (`match.request_principal`)."""
    issuer, slash, subject = value.rpartition("/")
    return f"{issuer}\n{subject}" if slash else "*"  # rare forms: such a rule is always a candidate


_FILES: Final[Mapping[str, Callable[[str], str]]] = {
    "source.namespace": _namespace_text,
    "source.ip": _block_text,
    "remote.ip": _block_text,
    "destination.ip": _block_text,
    "destination.port": lambda value: str(int(value)),
    "operation.host": hosts.fold,
    "operation.path": _path_text,
    "request.auth.principal": _issuer_and_subject,
}


def _principal(evidence: Evidence) -> Texts | None:
    peer = evidence.identity.peer
    return () if peer is None else (peer.name,)


def _namespace(evidence: Evidence) -> Texts | None:
    """Whatever stands between ``/ns/`` and a slash, wherever it is (`match.namespace`)."""
    peer = evidence.identity.peer
    if peer is None:
        return ()
    parts = str(peer).split("/")
    return tuple(parts[i + 1] for i in range(len(parts) - 2) if parts[i] == "ns")


def _request_principal(evidence: Evidence) -> Texts | None:
    token = evidence.identity.token
    return () if token is None or token.subject is None else (f"{token.issuer}\n{token.subject}",)


def _method(evidence: Evidence) -> Texts | None:
    http = evidence.facts.http
    return () if http is None else (http.method,)


def _host(evidence: Evidence) -> Texts | None:
    http = evidence.facts.http
    return None if http is None or not http.host else hosts.readings(hosts.fold(http.host))


def _path(evidence: Evidence) -> Texts | None:
    http = evidence.facts.http
    return (paths.meanings(http.path) or None) if http else None


def _port(evidence: Evidence) -> Texts | None:
    port = evidence.facts.destination.port
    return (str(port),) if port else None


def _sni(evidence: Evidence) -> Texts | None:
    sni = evidence.facts.sni
    return None if sni is None else (sni,)


def _address(read: Callable[[Evidence], str]) -> Lookup:
    def lookup(evidence: Evidence) -> Texts | None:
        try:
            readings = address_readings(read(evidence))
        except ValueError:
            return None
        return tuple(map(_bits, readings))

    return lookup


_source_ip: Final = _address(lambda evidence: evidence.facts.source.address)
_remote_ip: Final = _address(lambda evidence: evidence.remote_ip)
_destination_ip: Final = _address(lambda evidence: evidence.facts.destination.address)


def _claim(path: Texts) -> Lookup:
    def lookup(evidence: Evidence) -> Texts | None:
        token = evidence.identity.token
        found: object = token.claims if token else None
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, str):
            return (found,)
        return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list | tuple) else ()

    return lookup


def _header(argument: Texts) -> Lookup:
    name = argument[0]

    def lookup(evidence: Evidence) -> Texts | None:
        http = evidence.facts.http
        lines = http.headers.values(name) if http else ()
        if not lines:
            return ()
        if len(lines) == 1 and not name.startswith(":") and is_readable(lines[0]) and not _AMBIGUOUS & set(lines[0]):
            return lines
        return None  # several readings: let the rules judge them

    return lookup


LOOKUPS: Final[Mapping[str, Callable[[Texts], Lookup]]] = {
    "source.principal": lambda _: _principal,
    "source.namespace": lambda _: _namespace,
    "source.ip": lambda _: _source_ip,
    "remote.ip": lambda _: _remote_ip,
    "destination.ip": lambda _: _destination_ip,
    "destination.port": lambda _: _port,
    "connection.sni": lambda _: _sni,
    "operation.method": lambda _: _method,
    "operation.host": lambda _: _host,
    "operation.path": lambda _: _path,
    "request.auth.principal": lambda _: _request_principal,
    "request.auth.audiences": lambda _: _claim(("aud",)),
    "request.auth.presenter": lambda _: _claim(("azp",)),
    "request.auth.claims": _claim,
    "request.headers": _header,
}
