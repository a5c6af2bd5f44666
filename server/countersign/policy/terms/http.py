"""Attributes of the HTTP request: ``hosts``, ``methods``, ``paths``, ``request.headers[...]``.

In strict posture an attribute that backends may read in several ways has all of these readings, and a term holds
only if it holds for each (`match.agree`).
Source: Istio pilot/pkg/security/authz/matcher; Envoy's RBAC and header matchers; CVE-2026-26308.
"""

from typing import Final

from countersign.core import hosts, paths
from countersign.core.facts import Headers, HttpRequest, is_readable
from countersign.core.posture import Posture
from countersign.policy.match import Outcome, agree, present_or_wildcard, wildcards
from countersign.policy.resources import Action, Term
from countersign.policy.terms.evidence import ABSENT, Attribute, Context, Evidence, Got, Judge, any_test, matched
from countersign.policy.terms.templates import check_template, is_template, template

AUTHORITY: Final = ":authority"


def headers_read(term: Term) -> tuple[str, ...]:
    """The names of the headers at which a term looks."""
    match term.attribute:
        case "request.headers":
            return (term.argument[0],)
        case "operation.host":
            return (AUTHORITY,)
        case _:
            return ()


def _method(term: Term, _: Context) -> Judge:
    test = wildcards(term.values)

    def judge(evidence: Evidence) -> Outcome:
        http = evidence.facts.http
        return matched(http is not None and test(http.method))

    return judge


def _host(term: Term, context: Context) -> Judge:
    test = wildcards(map(hosts.fold, term.values))
    strict = context.posture is Posture.STRICT
    as_sent = not strict or _means_as_written(term, context)

    def judge(evidence: Evidence) -> Outcome:
        http = evidence.facts.http
        if http is None or not http.host:  # Envoy forwards `Host:` without a value, and a workload may have a default
            present = http is not None and bool(http.headers.values(AUTHORITY))
            return Outcome.UNREADABLE if strict else matched(present and "*" in term.values)
        host = hosts.fold(http.host)
        return matched(test(host)) if as_sent else agree(map(test, hosts.readings(host)))

    return judge


def _means_as_written(term: Term, context: Context) -> bool:
    """An ALLOW that names a host means it port and all; whatever excludes a host excludes every form of it."""
    return context.action is Action.ALLOW and not term.negated


def _path(term: Term, context: Context) -> Judge:
    templates = [template(value) for value in term.values if is_template(value)]
    plain = [value for value in term.values if not is_template(value)]
    test = any_test([*([wildcards(plain)] if plain else ()), *templates])
    strict = context.posture is Posture.STRICT

    def judge(evidence: Evidence) -> Outcome:
        http = evidence.facts.http
        path = http.path if http else ""
        if not strict:
            return matched(test(paths.without_query(path)))
        readings = paths.meanings(path)
        if not readings:  # CONNECT: a request for no path satisfies neither paths nor notPaths
            return Outcome.UNREADABLE
        return matched(test(readings[0])) if len(readings) == 1 else agree(map(test, readings))

    return judge


def _header(term: Term, context: Context) -> Judge:
    test = any_test([present_or_wildcard(value) for value in term.values])
    name = term.argument[0]
    strict = context.posture is Posture.STRICT
    as_sent = name == AUTHORITY and _means_as_written(term, context)

    def judge(evidence: Evidence) -> Outcome:
        http = evidence.facts.http
        lines = http.headers.values(name) if http else ()
        if not lines or http is None:
            return Outcome.NO_MATCH
        if not strict:
            return matched(any(map(test, lines)))
        if not all(map(is_readable, lines)):
            return Outcome.UNREADABLE
        return agree(map(test, lines if as_sent else _readings(name, lines, http.headers)))

    return judge


def _readings(name: str, lines: tuple[str, ...], headers: Headers) -> set[str]:
    """Each value, and all of them joined, as different backends see a repeated header (CVE-2026-26308)."""
    joined = ",".join(lines)
    if name == ":path":
        path = paths.without_query(joined)
        return {reading + joined[len(path) :] for reading in paths.readings(path)}
    if name == AUTHORITY:
        return {joined, *hosts.readings(joined)}
    parts = joined.split(",") if headers.joined else lines
    return {joined, *lines, *(part.strip(" \t") for part in parts)}


def _got_header(term: Term, evidence: Evidence) -> str:
    http = evidence.facts.http
    lines = http.headers.values(term.argument[0]) if http else ()
    return ", ".join(map(repr, lines)) or ABSENT


def _got(name: str) -> Got:
    def got(_: Term, evidence: Evidence) -> str:
        http: HttpRequest | None = evidence.facts.http
        return (str(getattr(http, name)) if http else "") or ABSENT

    return got


HOST: Final = Attribute(prepare=_host, got=_got("host"), http=True)
METHOD: Final = Attribute(prepare=_method, got=_got("method"), http=True)
PATH: Final = Attribute(prepare=_path, got=_got("path"), check=check_template, http=True)
HEADER: Final = Attribute(prepare=_header, got=_got_header, takes_argument=True, http=True)
