"""Attributes of the user's token: ``requestPrincipals`` and ``request.auth.*``.

Source: Istio pilot/pkg/security/authz/model (requestPrincipalGenerator, requestClaimGenerator, ...).
"""

from collections.abc import Sequence
from typing import Any, Final

from countersign.core.claims import claim_at
from countersign.policy.match import Outcome, request_principal, wildcards
from countersign.policy.resources import Term
from countersign.policy.terms.evidence import ABSENT, Attribute, Context, Evidence, Judge, any_test, matched


def _request_principal(term: Term, _: Context) -> Judge:
    test = any_test([request_principal(value) for value in term.values])

    def judge(evidence: Evidence) -> Outcome:
        token = evidence.identity.token
        if token is None or token.subject is None:  # Istio matches both claims, so both must be there
            return Outcome.NO_MATCH
        return matched(test((token.issuer, token.subject)))

    return judge


def _got_request_principal(_: Term, evidence: Evidence) -> str:
    token = evidence.identity.token
    return ABSENT if token is None else f"{token.issuer}/{token.subject or ''}"


def _at(path: Sequence[str], evidence: Evidence) -> Any:  # noqa: ANN401 (any JSON value)
    return claim_at(evidence.identity.token.claims, path) if evidence.identity.token else None


def _claim(path: Sequence[str] | None) -> Attribute:
    """A claim at a fixed path, or at the path in the term's brackets."""

    def prepare(term: Term, _: Context) -> Judge:
        test = wildcards(term.values)
        where = term.argument if path is None else path

        def judge(evidence: Evidence) -> Outcome:
            found = _at(where, evidence)
            if isinstance(found, str):
                return matched(test(found))
            if isinstance(found, (list, tuple)):
                for text in found:
                    if isinstance(text, str) and test(text):
                        return Outcome.MATCH
            return Outcome.NO_MATCH

        return judge

    def got(term: Term, evidence: Evidence) -> str:
        if evidence.identity.token is None:
            return "no token"
        found = _at(term.argument if path is None else path, evidence)
        return ABSENT if found is None else str(found)

    return Attribute(prepare=prepare, got=got, takes_argument=path is None, http=True)


REQUEST_PRINCIPAL: Final = Attribute(prepare=_request_principal, got=_got_request_principal, http=True)
AUDIENCES: Final = _claim(("aud",))
PRESENTER: Final = _claim(("azp",))
CLAIM: Final = _claim(None)
