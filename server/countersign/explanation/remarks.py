"""What a reader of an explanation should know beside it: what was not checked, and what to say or write instead."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from countersign.core.decision import AllowReason, Reason
from countersign.core.facts import RequestFacts
from countersign.core.jwt_rule import JwtRule, RemoteKeys
from countersign.core.posture import Posture
from countersign.judgement import Judgement, Step
from countersign.tokens.authenticate import is_preflight
from countersign.tokens.jose import UnverifiedToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """How a judgement came about.

    ``claims`` are those that were given in place of a token, ``namespaces`` those in which any policy is.
    """

    facts: RequestFacts | None
    claims: UnverifiedToken | None
    signature_checked: bool
    jwt_rules: tuple[JwtRule, ...]
    posture: Posture
    namespaces: frozenset[str]


def request_line(facts: RequestFacts | None) -> str:
    """The request in a few words, without its query."""
    http = facts.http if facts else None
    if facts is None:
        return "no request that can be read"
    if http is None:
        ends = (facts.source, facts.destination)
        source, destination = (f"{end.address}{f':{end.port}' if end.port else ''}" or "somewhere" for end in ends)
        return f"a TCP connection from {source} to {destination}"
    path, question_mark, _ = http.path.partition("?")
    return f"{http.method} {path}{'?...' if question_mark else ''}{f' of {http.host}' if http.host else ''}"


def no_user(known: Circumstances) -> str:
    """Why a request that passed step 4 has no user."""
    if known.facts and known.facts.http is None:
        return "a TCP connection has no token"
    if not known.jwt_rules:
        return "no RequestAuthentication applies, so no token is looked at"
    if known.facts and known.facts.http and is_preflight(known.facts.http):
        return "a CORS preflight, which is asked for no token"
    return "no token"


_ADVICE: Final = {
    Reason.TOKEN_WITHOUT_CERTIFICATE: "--certificate FILE says which certificate the peer has; see docs/peers.md",
    Reason.WORKLOAD_UNKNOWN: "--to NS/APP, or --namespace NS, says which workload it is for",
    Reason.NO_POLICIES: "found no policy at --policies: serving denies everything until there is one",
}


def remarks(judgement: Judgement, known: Circumstances) -> Iterator[str]:
    """Everything worth saying, the most important first."""
    yield from _signature(judgement, known)
    if known.facts and known.facts.http is None and judgement.evaluation:
        yield (
            "a TCP connection has no HTTP fields: ALLOW rules that ask for one are left out, "
            "and of other rules those fields, so that they match more"
        )
    match judgement.decision.reason:
        case AllowReason.NO_ALLOW_POLICY:
            yield "no ALLOW policy applies to this workload; Istio then allows whatever no DENY policy denies"
            if judgement.workload and judgement.workload.namespace not in known.namespaces:
                yield f"no policy is in its namespace; those that are loaded are in {_list(set(known.namespaces))}"
        case Reason.NO_ALLOW_RULE_MATCHED if judgement.evaluation and not any(
            rule.action == "ALLOW" for rule in judgement.evaluation.rules
        ):
            yield "an ALLOW policy applies, but no rule could match: an ALLOW policy without rules allows nothing"
        case Reason.TOKEN_ISSUER:
            yield f"issuers that count here: {_list({rule.issuer for rule in known.jwt_rules})}"
        case Reason.TOKEN_AUDIENCE:
            yield f"audiences that count here: {_list({name for rule in known.jwt_rules for name in rule.audiences})}"
        case Reason.REQUEST_INCOMPLETE if judgement.step is Step.PEER:
            yield "--port N says which port it is"
        case Reason() as reason if reason in _ADVICE:
            yield _ADVICE[reason]
        case _:
            pass


def _signature(judgement: Judgement, known: Circumstances) -> Iterator[str]:
    if known.claims is not None:
        yield "no signature was checked: the claims are taken as they were given"
        if judgement.token and "exp" not in known.claims.payload and known.posture is Posture.STRICT:
            yield "the claims have no `exp`: a real token without it is refused (--posture strict)"
    elif judgement.token and not known.signature_checked:
        uris = {
            rule.keys.uri
            for rule in known.jwt_rules
            if isinstance(rule.keys, RemoteKeys) and rule.issuer in ("", judgement.token.issuer)
        }
        yield f"the signature was NOT checked: explain fetches nothing; save {_list(uris)} and pass it with --jwks FILE"


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
