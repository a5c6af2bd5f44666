"""How one value of a policy matches one value of a request.

Values are literals but for a ``*``: alone it means present and not empty, last a prefix, first a suffix. Only the
first form that applies counts, so ``*a*`` is the suffix ``a*``, and a ``*`` elsewhere is a character.
Source: Istio pilot/pkg/security/authz/matcher and model.
"""

import re
from collections.abc import Callable, Iterable
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")


class Outcome(IntEnum):
    """Three values, ordered for Kleene's logic: AND is the minimum, OR the maximum, NOT the mirror.

    UNREADABLE: the attribute cannot be read, or its readings disagree. It fires a DENY and never satisfies an ALLOW.
    """

    NO_MATCH = 0
    UNREADABLE = 1
    MATCH = 2


_MIRROR: Final = (Outcome.MATCH, Outcome.UNREADABLE, Outcome.NO_MATCH)


def both(outcomes: Iterable[Outcome]) -> Outcome:
    """AND; nothing to hold holds."""
    return min(outcomes, default=Outcome.MATCH)


def either(outcomes: Iterable[Outcome]) -> Outcome:
    """OR; nothing to choose from does not hold."""
    return max(outcomes, default=Outcome.NO_MATCH)


def negate(outcome: Outcome) -> Outcome:
    """NOT; what cannot be read cannot be denied either."""
    return _MIRROR[outcome]


def agree(readings: Iterable[bool]) -> Outcome:
    """One outcome from what each reading says: they agree, or the attribute is ambiguous."""
    yes = no = False
    for reading in readings:
        if reading:
            yes = True
        else:
            no = True
    if yes is no:
        return Outcome.UNREADABLE
    return Outcome.MATCH if yes else Outcome.NO_MATCH


Test = Callable[[str], bool]


def wildcard(pattern: str) -> Test:
    """Istio's string match: exact, ``x*``, ``*x`` or ``*``."""
    if pattern == "*":
        return bool
    if pattern.startswith("*"):
        suffix = pattern[1:]
        return lambda text: text.endswith(suffix)
    if pattern.endswith("*"):
        prefix = pattern[:-1]
        return lambda text: text.startswith(prefix)
    return lambda text: text == pattern


def wildcards(patterns: Iterable[str]) -> Test:
    """Whether any `wildcard` matches: the exact ones, prefixes and suffixes are each asked all at once."""
    every = tuple(patterns)
    if len(every) == 1:
        return wildcard(every[0])
    present = "*" in every
    starred = [pattern for pattern in every if pattern != "*"]
    suffixes = tuple(pattern[1:] for pattern in starred if pattern.startswith("*"))
    prefixes = tuple(pattern[:-1] for pattern in starred if pattern.endswith("*") and not pattern.startswith("*"))
    exact = frozenset(pattern for pattern in every if "*" not in (pattern[:1], pattern[-1:]))
    if not (present or suffixes or prefixes):
        return exact.__contains__
    return lambda text: (
        text in exact or text.startswith(prefixes) or text.endswith(suffixes) or (present and bool(text))
    )


def present_or_wildcard(pattern: str) -> Test:
    """As `wildcard`, but ``*`` is satisfied by an empty value too: the header is there (Envoy's ``present_match``)."""
    return (lambda _: True) if pattern == "*" else wildcard(pattern)


def namespace(pattern: str) -> Test:
    """``namespaces``: the whole principal against ``.*/ns/<pattern>/.*``, every ``*`` being ``.*``.

    The parts between the stars, each found first after the one before: the same, without backtracking.
    """
    parts = f"/ns/{pattern}/".split("*")

    def test(principal: str) -> bool:
        at = 0
        for part in parts:
            found = principal.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return test


def request_principal(pattern: str) -> Callable[[tuple[str, str]], bool]:
    """``requestPrincipals`` against (iss, sub), cut at the last slash (Istio's ``requestPrincipalGenerator``).

    One ``*`` counts, at either end of the whole value: in ``*/s*`` and ``i*/s`` the other one is a character.
    """
    issuer, slash, subject = pattern.rpartition("/")
    if pattern.startswith("*"):
        iss, sub = (wildcard(issuer), _exactly(subject)) if slash else (wildcard("*"), wildcard(pattern))
    elif pattern.endswith("*"):
        iss, sub = (_exactly(issuer), _present_or_prefix(subject)) if slash else (wildcard(pattern), wildcard("*"))
    elif slash:
        iss, sub = _exactly(issuer), _exactly(subject)
    else:  # an issuer alone: it would take a token with an empty subject
        iss, sub = _exactly(pattern), _exactly("")
    return lambda claims: iss(claims[0]) and sub(claims[1])


def _exactly(wanted: str) -> Test:
    return lambda text: text == wanted


def _present_or_prefix(pattern: str) -> Test:
    """A ``*`` alone, or last whatever stands before it."""
    return wildcard("*") if pattern == "*" else (lambda text: text.startswith(pattern[:-1]))


def expand_trust_domain(principal: str, trust_domains: tuple[str, ...]) -> tuple[str, ...]:
    """A principal of the local mesh, in each of its trust domains (Istio's ``ReplaceTrustDomainAliases``).

    Only ``<td>/ns/<ns>/sa/<sa>`` is rewritten, and only if its trust domain is (or overlaps by a wildcard) one of
    the mesh's, or is ``cluster.local``, which always means the local mesh whatever its name.
    """
    first, *rest = principal.split("/")
    if len(rest) != 4:  # noqa: PLR2004 (five parts: <td>/ns/<ns>/sa/<sa>)
        return (principal,)
    test = wildcard(first)
    if first != "cluster.local" and not any(test(domain) for domain in trust_domains):
        return (principal,)
    tail = "/".join(rest)
    heads = (first if first.startswith("*") and test(domain) else domain for domain in trust_domains)
    return tuple(dict.fromkeys(f"{head}/{tail}" for head in heads))


def network(text: str) -> IPv4Network | IPv6Network:
    """An IP address or CIDR block; host bits are dropped, as Envoy does. Raise ValueError for anything else."""
    address, slash, length = text.partition("/")
    if "%" in address or (slash and _PREFIX_LENGTH.fullmatch(length) is None):  # ip_network takes zones and netmasks
        raise ValueError("not an IP address or CIDR block")
    return ip_network(text, strict=False)


def address_readings(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """An address as Envoy reads it, then as others may: to most of them an IPv4-mapped IPv6 address is IPv4.

    A zone is ignored. Raise ValueError for what is no address.
    """
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (address,) if mapped is None else (address, mapped)
