"""What `cert inspect` says of a chain: values first, then text for people or JSON for scripts."""

import base64
import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from countersign.certificates.chain import Link
from countersign.cli.times import span
from countersign.core.certificate import Certificate, why_no_workload
from countersign.core.spiffe import SpiffeId
from countersign.explanation.conceal import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One certificate; the fields are the keys of ``-o json``. Times are ISO 8601, ``validity`` is words."""

    subject: str
    issuer: str
    serial: str
    uris: tuple[str, ...]
    dns: tuple[str, ...]
    other_names: tuple[str, ...]
    not_before: str
    not_after: str
    validity: str
    key: str
    is_ca: bool
    path_length: int | None
    key_usage: tuple[str, ...] | None
    extended_key_usage: tuple[str, ...] | None
    sha256: str
    self_signed: bool
    signed_by_next: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``verified`` is null if there was nothing to verify against. ``why_not`` is empty exactly if ``accepted``."""

    accepted: bool
    why_not: tuple[str, ...]
    spiffe_id: str | None
    xfcc_hash: str
    x5t_s256: str
    verified: bool | None
    why_unverified: str
    certificates: tuple[Entry, ...]
    notes: tuple[str, ...]


def report(chain: Sequence[Link], unverified: str | None, trust_domains: Sequence[str], now: float) -> Report:
    """What is to be said of a chain, leaf first, at ``now`` (seconds since the epoch).

    ``unverified`` is why no authority vouches for it, empty if one does, None if none was asked.
    """
    leaf = chain[0].facts
    why_not = tuple(_why_not(chain, unverified, trust_domains, now))
    named = not why_no_workload(leaf)
    return Report(
        accepted=not why_not,
        why_not=why_not,
        spiffe_id=leaf.uris[0] if named else None,
        xfcc_hash=leaf.sha256.hex(),
        x5t_s256=base64.urlsafe_b64encode(leaf.sha256).rstrip(b"=").decode(),
        verified=None if unverified is None else not unverified,
        why_unverified=unverified or "",
        certificates=tuple(_entry(link, now) for link in chain),
        notes=tuple(_notes(chain, unverified)),
    )


def _why_not(chain: Sequence[Link], unverified: str | None, trust_domains: Sequence[str], now: float) -> Iterator[str]:
    leaf = chain[0].facts
    wrong = why_no_workload(leaf)
    if wrong:
        yield wrong
    elif (domain := SpiffeId.parse(leaf.uris[0]).trust_domain) not in trust_domains:
        yield f"`{domain}` is not the mesh's trust domain ({', '.join(trust_domains)}); --trust-domain says which is"
    if not leaf.not_before <= now <= leaf.not_after:
        yield f"Envoy's handshake refuses it: {_validity(leaf, now)}"
    for number, link in enumerate(chain, 1):
        if link.signed_by_next is False:
            yield f"certificate {number} is not signed by number {number + 1}: leaf first, each signed by the next"
    if unverified:
        yield f"no path to the authorities of --ca: {unverified}"


def _notes(chain: Sequence[Link], unverified: str | None) -> Iterator[str]:
    leaf = chain[0].facts
    if unverified is None:
        yield "no authority was asked: --ca FILE says whom Envoy trusts"
    if leaf.key_usage is None or not leaf.key_usage_critical:
        yield "no critical key usage, which X509-SVID section 4.3 wants; other readers may refuse it"
    if leaf.extended_key_usage is not None and "clientAuth" not in leaf.extended_key_usage:
        yield "its extended key usage is not for clients (clientAuth): TLS libraries refuse it from one"


def _entry(link: Link, now: float) -> Entry:
    facts = link.facts
    return Entry(
        subject=facts.subject,
        issuer=facts.issuer,
        serial=f"{facts.serial:x}",
        uris=facts.uris,
        dns=facts.dns,
        other_names=facts.other_names,
        not_before=_moment(facts.not_before),
        not_after=_moment(facts.not_after),
        validity=_validity(facts, now),
        key=facts.key,
        is_ca=facts.is_ca,
        path_length=facts.path_length,
        key_usage=None if facts.key_usage is None else tuple(sorted(facts.key_usage)),
        extended_key_usage=facts.extended_key_usage,
        sha256=facts.sha256.hex(),
        self_signed=link.self_signed,
        signed_by_next=link.signed_by_next,
    )


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _validity(facts: Certificate, now: float) -> str:
    if now < facts.not_before:
        return f"not yet valid, begins in {span(facts.not_before - now)}"
    if now > facts.not_after:
        return f"expired {span(now - facts.not_after)} ago"
    return f"valid, ends in {span(facts.not_after - now)}"


def as_json(told: Report) -> str:
    """One JSON object."""
    return json.dumps(asdict(told), indent=2)


def as_text(told: Report) -> str:
    """Several lines; names come from the certificate, so that nothing of them reaches a terminal as a command."""
    return "\n".join(map(printable, _lines(told)))


def _lines(told: Report) -> Iterator[str]:
    yield f"as a peer        {'accepted' if told.accepted else 'NOT accepted'}"
    yield from (f"  because        {why}" for why in told.why_not)
    yield f"SPIFFE ID        {told.spiffe_id or 'none'}"
    yield f"hash in XFCC     Hash={told.xfcc_hash}"
    yield f'cnf of its token {{"x5t#S256": "{told.x5t_s256}"}}'
    if told.verified is not None:
        yield f"chain            {'verified against --ca' if told.verified else 'NOT verified'}"
    for number, entry in enumerate(told.certificates, 1):
        yield ""
        yield from _certificate(number, entry)
    if told.notes:
        yield ""
    yield from (f"note: {note}" for note in told.notes)


def _certificate(number: int, entry: Entry) -> Iterator[str]:
    yield f"certificate {number}    {'of an authority' if entry.is_ca else 'of a leaf'}"
    yield f"  subject        {entry.subject or '(empty)'}"
    yield f"  issuer         {entry.issuer or '(empty)'}{_signer(number, entry)}"
    for label, names in (("URI", entry.uris), ("DNS", entry.dns), ("other", entry.other_names)):
        yield from (f"  SAN {label:<11}{name}" for name in names)
    yield f"  validity       {entry.validity} ({entry.not_before} to {entry.not_after})"
    yield f"  key            {entry.key}"
    yield f"  key usage      {_list(entry.key_usage)}; extended: {_list(entry.extended_key_usage)}"
    yield f"  serial         {entry.serial}"
    yield f"  SHA-256        {entry.sha256}"


def _signer(number: int, entry: Entry) -> str:
    if entry.self_signed:
        return " (signed by itself)"
    if entry.signed_by_next is None:
        return ""
    return f" (signed by number {number + 1})" if entry.signed_by_next else f" (NOT signed by number {number + 1})"


def _list(names: Sequence[str] | None) -> str:
    return "not said" if names is None else ", ".join(names) or "none"
