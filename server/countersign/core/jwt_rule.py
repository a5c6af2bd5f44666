"""One ``jwtRules`` entry of a RequestAuthentication: whose tokens count, where they are, what they produce.

`policy` reads it from YAML and `tokens` acts on it, so it belongs to neither.
Source: security.istio.io/v1 RequestAuthentication, message JWTRule.
"""

from dataclasses import dataclass

from countersign.core.binding import Binding


@dataclass(frozen=True, slots=True)
class InlineKeys:
    """``jwks``: the key set itself, as JSON text."""

    jwks: str


@dataclass(frozen=True, slots=True)
class RemoteKeys:
    """``jwksUri``: where the issuer publishes its key set. ``timeout`` of one fetch, in seconds.

    With ``discover``, what is there is the issuer's OpenID configuration, which names the key set's place.
    ``access`` names the configured way there; empty for the usual one.
    """

    uri: str
    timeout: float = 5.0
    discover: bool = False
    access: str = ""

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True, slots=True)
class FileKeys:
    """A local file with the key set, by configuration, where the issuer cannot be reached."""

    path: str

    def __str__(self) -> str:
        return self.path


FetchedKeys = RemoteKeys | FileKeys
KeySource = InlineKeys | FetchedKeys


@dataclass(frozen=True, slots=True)
class HeaderLocation:
    """``fromHeaders``: a (lower-case) header name and the prefix that precedes the token in its value."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ClaimToHeader:
    """``outputClaimToHeaders``: ``claim`` is a path, ``a.b`` or ``[a][b]``. ``header`` is lower case."""

    header: str
    claim: str


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class JwtRule:
    """See each field's Istio namesake. ``source`` is the rule's ``file:line``, ``policy`` its ``namespace/name``.

    ``from_headers``, ``from_params`` and ``from_cookies`` all empty means Istio's defaults: the header
    ``Authorization: Bearer `` and the query parameter ``access_token``. ``bindings`` are the resource's annotation.
    """

    issuer: str
    keys: KeySource
    audiences: tuple[str, ...] = ()
    from_headers: tuple[HeaderLocation, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    forward_original_token: bool = False
    required: bool = False  # `presence: REQUIRED`
    space_delimited_claims: frozenset[str] = frozenset({"scope", "permission"})
    bindings: tuple[Binding, ...] = ()
    policy: str
    source: str
