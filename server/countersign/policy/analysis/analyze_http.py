"""Hosts, methods and paths that no request has, or that have more forms than the rule names.

Source: RFC 9110 9.1 (methods are case-sensitive), RFC 3986 6.2.2 and `core.paths` (normal form); istio/istio issues
39810 (ports in hosts), 46910, 27409 and 60431 (paths).
"""

import re
from difflib import get_close_matches
from typing import Final

from countersign.core import hosts, paths
from countersign.core.posture import Posture
from countersign.policy.analysis.findings import Context, Finding, literal_asterisk
from countersign.policy.match import wildcard
from countersign.policy.problems import Code
from countersign.policy.resources import Action, Term

# IANA's registry of HTTP methods, and what caches add.
_METHODS: Final = frozenset(
    {
        "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE", "GET", "HEAD", "LABEL",
        "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "OPTIONS",
        "ORDERPATCH", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH",
        "TRACE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
    }
)  # fmt: skip
_PORT: Final = re.compile(r"(?:[^:]*|.*\]):([0-9]*)\*?")
_TEMPLATE: Final = re.compile(r"\{\*\*?\}")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]*")


def host(term: Term, value: str, context: Context) -> Finding | None:
    """The port is part of the authority, so a host alone does not match the same host with a port."""
    if _PORT.fullmatch(value) is not None:
        return None
    missed_gets_through = (context.action is Action.DENY) is not term.negated
    if missed_gets_through and context.surroundings.posture is Posture.STRICT:
        return None  # judged with and without its port
    name = hosts.fold(value)
    others = [hosts.fold(other) for other in term.values]
    if any(other.endswith("*") and wildcard(other)(f"{name}:") for other in others):
        return None
    if not missed_gets_through and any(other.startswith(f"{name}:") for other in others):
        return None  # somebody has thought of ports
    ports = f"`{value}:8443`, and so on for each port in use: a suffix cannot cover them all"
    write = f"also list {ports}" if value.startswith("*") else f"also list `{value}:*`"
    return Finding(Code.HOST_WITHOUT_PORT, f"does not match `{value.replace('*', 'a')}:8443`", write)


def method(_: Term, value: str, __: Context) -> Finding | None:
    """Methods are upper case, but for what nobody has registered."""
    if value in _METHODS or any(map(wildcard(value), _METHODS)):
        return None
    if any(map(wildcard(value.upper()), _METHODS)):
        write = f"write `{value.upper()}`: methods are upper case"
    elif close := get_close_matches(value, sorted(_METHODS), n=1):
        write = f"did you mean `{close[0]}`?"
    else:
        write = "such as GET, POST or DELETE; gRPC is POST"
    return Finding(Code.METHOD_NEVER_MATCHES, "is no HTTP method", write)


def path(term: Term, value: str, context: Context) -> Finding | None:
    """A path is what stands before the query, starts with a slash, and arrives in normal form."""
    is_template = _TEMPLATE.search(value) is not None
    if not is_template and (found := literal_asterisk(term, value, context)) is not None:
        return found
    code, sample = Code.PATH_NEVER_MATCHES, _sample(value)
    if "?" in value or "#" in value:
        what = "never matches, because queries and fragments are cut off before"
        return Finding(code, what, f"write `{paths.without_query(value)}`")
    if not sample.startswith("/"):
        return Finding(code, "never matches, because paths start with a slash", f"write `/{value}`")
    if _PRINTABLE.fullmatch(sample) is None:
        return Finding(code, "has a character that no request has in its path", "percent-encode it")
    if (normal := paths.normalise(sample)) != sample:
        what = f"is not in normal form: servers read `{sample}` as `{normal}`"
        return Finding(code, what, "write it as servers read it")
    return None


def _sample(value: str) -> str:
    """A path that the value matches. The ``*`` of a prefix stays: ``/a/.*`` is not to be taken for ``/a/.``."""
    return f"/x{value[1:]}" if value.startswith("*") else _TEMPLATE.sub("x", value)
