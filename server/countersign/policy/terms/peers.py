"""Attributes of the peer: ``principals``, ``namespaces``, ``serviceAccounts``, ``trustDomains``.

Source: Istio pilot/pkg/security/authz/model (srcPrincipalGenerator, srcNamespaceGenerator, ...), trustdomain.
"""

import re
from collections.abc import Callable
from typing import Final

from countersign.policy.match import Outcome, expand_trust_domain, namespace, wildcards
from countersign.policy.resources import Term
from countersign.policy.terms.evidence import ABSENT, Attribute, Check, Context, Evidence, Judge, any_test, matched

_MAX_SERVICE_ACCOUNT: Final = 320  # Istio's limit of one value
_PRINCIPAL: Final = "spiffe://"


def _on_peer(test: Callable[[str], bool]) -> Judge:
    def judge(evidence: Evidence) -> Outcome:
        peer = evidence.identity.peer
        return matched(peer is not None and test(str(peer)))

    return judge


def _principal(term: Term, context: Context) -> Judge:
    values = dict.fromkeys(v for value in term.values for v in expand_trust_domain(value, context.trust_domains))
    test = wildcards(values)

    def judge(evidence: Evidence) -> Outcome:
        peer = evidence.identity.peer
        return matched(peer is not None and test(peer.name))

    return judge


def _namespace(term: Term, _: Context) -> Judge:
    return _on_peer(any_test([namespace(value) for value in term.values]))


def _service_account(term: Term, context: Context) -> Judge:
    """``namespace/name``, or ``name`` in the policy's own namespace."""
    patterns = []
    for value in term.values:
        own, _, name = (value if "/" in value else f"{context.namespace}/{value}").partition("/")
        patterns.append(re.compile(f"spiffe://.+/ns/{re.escape(own)}/(.+/|)sa/{re.escape(name)}(/.+)?"))
    return _on_peer(lambda principal: any(pattern.fullmatch(principal) is not None for pattern in patterns))


def _trust_domain(term: Term, context: Context) -> Judge:
    values: list[str] = []
    for value in term.values:
        values += context.trust_domains if value in context.trust_domains else [value]
    return _on_peer(any_test([_in_trust_domain(value) for value in dict.fromkeys(values)]))


def _in_trust_domain(value: str) -> Callable[[str], bool]:
    if "*" not in value:
        return lambda principal: principal.startswith(f"{_PRINCIPAL}{value}/")
    if value == "*":
        return lambda principal: principal.startswith(_PRINCIPAL)
    before, _, after = value.partition("*")
    pattern = re.compile(f"spiffe://{re.escape(before)}[^/]*{re.escape(after)}/.*")
    return lambda principal: pattern.fullmatch(principal) is not None


def _check_service_account(value: str) -> str:
    if "*" in value:
        return "a service account has no wildcards"
    if value.count("/") > 1 or not all(value.split("/")):
        return "wants `namespace/name` or `name`"
    return "" if len(value) <= _MAX_SERVICE_ACCOUNT else f"longer than {_MAX_SERVICE_ACCOUNT} characters"


def _check_trust_domain(value: str) -> str:
    if "/" in value:
        return "a trust domain has no slash"
    sound = value.count("*") <= 1 and "*" not in value[1:-1]
    return "" if sound else "at most one `*`, first or last"


def _got(_: Term, evidence: Evidence) -> str:
    return ABSENT if evidence.identity.peer is None else str(evidence.identity.peer)


def _nothing(_: str) -> str:
    return ""


def _attribute(prepare: Callable[[Term, Context], Judge], check: Check = _nothing) -> Attribute:
    return Attribute(prepare=prepare, got=_got, check=check)


PRINCIPAL: Final = _attribute(_principal)
NAMESPACE: Final = _attribute(_namespace)
SERVICE_ACCOUNT: Final = _attribute(_service_account, _check_service_account)
TRUST_DOMAIN: Final = _attribute(_trust_domain, _check_trust_domain)
