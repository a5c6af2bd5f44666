"""Names of workloads and users that cannot be anybody's.

Source: as in `match`; RFC 7519 4.1 and OpenID Connect Core 5.1 (types of claims); istio/istio issues 39703, 41290
(booleans and numbers), 52217 and 59541 (request principals).
"""

from difflib import get_close_matches
from typing import Final

from countersign.core.spiffe import SpiffeId, SpiffeIdError
from countersign.policy.analysis.findings import Context, Finding, is_exact, literal_asterisk, without_wildcard
from countersign.policy.match import wildcard
from countersign.policy.problems import Code, did_you_mean
from countersign.policy.resources import Term

_NUMBERS: Final = frozenset({"exp", "iat", "nbf", "auth_time", "updated_at"})
_BOOLEANS: Final = frozenset({"email_verified", "phone_number_verified"})
_SIMILAR: Final = 0.8  # of a trust domain: a slip of a letter or two


def spiffe_scheme(_: Term, value: str, __: Context) -> Finding | None:
    """``spiffe://`` is Istio's to add."""
    name = value.removeprefix("spiffe://")
    if name == value:
        return None
    return Finding(Code.SPIFFE_SCHEME, "never matches, because `spiffe://` is put before it", f"write `{name}`")


def principal(_: Term, value: str, context: Context) -> Finding | None:
    """An exact principal is a SPIFFE ID of some workload, and not of a trust domain that is a slip."""
    if not is_exact(value):
        return None
    domains = context.surroundings.trust_domains
    domain, _slash, path = value.partition("/")
    if domain == "ns":
        write = f"write `{domains[0]}/{value}`, or `*/{value}` for every trust domain"
        return Finding(Code.PRINCIPAL_NEVER_MATCHES, "has no trust domain", write)
    try:
        SpiffeId.parse(f"spiffe://{value}")
    except SpiffeIdError:
        write = f"such as {domains[0]}/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
        return Finding(Code.PRINCIPAL_NEVER_MATCHES, "is no SPIFFE ID without its scheme", write)
    if not path:
        return Finding(Code.PRINCIPAL_NEVER_MATCHES, "names a trust domain and no workload", f"write `{value}/*`")
    return _trust_domain(domain, domains)


def trust_domain(_: Term, value: str, context: Context) -> Finding | None:
    """Likewise for ``trustDomains``."""
    return _trust_domain(value, context.surroundings.trust_domains) if is_exact(value) else None


def _trust_domain(found: str, domains: tuple[str, ...]) -> Finding | None:
    """A foreign trust domain is fine; one that is nearly the mesh's is a slip. ``cluster.local`` is always the mesh."""
    known = {*domains, "cluster.local"}
    if found in known or not (close := get_close_matches(found, sorted(known), n=1, cutoff=_SIMILAR)):
        return None
    what = f"names the trust domain `{found}`, which is not the mesh's"
    return Finding(Code.PRINCIPAL_NEVER_MATCHES, what, f"did you mean `{close[0]}`? else declare it: an alias")


def request_principal(term: Term, value: str, context: Context) -> Finding | None:
    """``<issuer>/<subject>``, cut at the last slash; of the whole value one ``*`` counts, at either end."""
    issuer, slash, subject = value.rpartition("/")
    if not slash:
        return _issuer_alone(term, value, context)
    if "*" in without_wildcard(value):
        return _second_asterisk(issuer, subject)
    code = Code.REQUEST_PRINCIPAL_NEVER_MATCHES
    if issuer in ("http:/", "https:/"):
        what = f"is cut at its last slash, into issuer `{issuer}` and subject `{subject}`"
        return Finding(code, what, f"write `{value.removesuffix('*')}/*`: the whole issuer, a slash, the subject")
    if not subject:
        return Finding(code, "has an empty subject", f"write `{value}*` for all of the issuer's users")
    if f"{issuer}/" in context.issuers and issuer not in context.issuers:
        write = f"write `{issuer}//{subject}`: the issuer ends with a slash of its own"
        return Finding(code, f"has the issuer `{issuer}` without its last slash", write)
    return _unknown_issuer(issuer, context)


def _issuer_alone(term: Term, value: str, context: Context) -> Finding | None:
    """A prefix of issuers, a suffix of subjects, or a mistake."""
    if is_exact(value):
        what, write = "is an issuer without a subject", f"write `{value}/*` for all of its users"
        return Finding(Code.REQUEST_PRINCIPAL_NEVER_MATCHES, what, write)
    found = literal_asterisk(term, value, context)
    return found if found is not None or value.startswith("*") else _unknown_issuer(value, context)


def _second_asterisk(issuer: str, subject: str) -> Finding:
    """``*/*`` asks for a subject whose name is ``*`` (Istio's ``requestPrincipalGenerator``)."""
    if (issuer, subject) == ("*", "*"):
        write = "write `*` for everybody with a token"
    elif issuer.startswith("*") and subject.endswith("*"):
        write = f"name the issuer, as in `https://issuer.example/{subject}`"
    else:
        write = "list the issuers or the subjects"
    what = "has a `*` that is a plain character, for one counts in the whole value, first or last"
    return Finding(Code.LITERAL_ASTERISK, what, write)


def _unknown_issuer(issuer: str, context: Context) -> Finding | None:
    known = context.issuers
    if not known or "" in known or any(map(wildcard(issuer), known)):
        return None
    what = f"has the issuer `{issuer}`, which no RequestAuthentication here accepts"
    return Finding(Code.REQUEST_PRINCIPAL_NEVER_MATCHES, what, did_you_mean(issuer, known))


def claim(term: Term, value: str, context: Context) -> Finding | None:
    """Claims match as strings and as lists of strings, a split one word by word."""
    code, name = Code.CLAIM_NEVER_MATCHES, term.argument[0]
    if any(set(part) & {"[", "]"} for part in term.argument):
        return Finding(code, f"is sought in one claim of the literal name `{name}`", "close each bracket: [a][b]")
    if len(term.argument) > 1:
        return None
    if name in _NUMBERS | _BOOLEANS:
        kind = "number" if name in _NUMBERS else "boolean"
        what = f"never matches, because `{name}` is a {kind}"
        return Finding(code, what, "only strings and lists of them match: have the issuer write a string")
    if " " in value and name in context.split_claims:
        write = "one word a value; to ask for several words, one `when` entry each"
        return Finding(code, f"never matches, because `{name}` is split at its spaces", write)
    return None
