"""Every attribute that a rule can ask about, by the name of its `when` key, and the fields that stand for it.

A new field of Istio's is a new row here.
Source: security.istio.io AuthorizationPolicy: Source, Operation, Condition; istio.io "Authorization Policy Conditions".
"""

from collections.abc import Mapping
from typing import Final

from countersign.policy.terms import claims, connection, http, peers
from countersign.policy.terms.evidence import Attribute

EXPERIMENTAL: Final = "experimental.envoy.filters"  # `.<filter>[<key>]` follows

ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "source.principal": peers.PRINCIPAL,
    "source.namespace": peers.NAMESPACE,
    "source.serviceAccount": peers.SERVICE_ACCOUNT,
    "source.trustDomain": peers.TRUST_DOMAIN,
    "source.ip": connection.SOURCE_IP,
    "remote.ip": connection.REMOTE_IP,
    "destination.ip": connection.DESTINATION_IP,
    "destination.port": connection.DESTINATION_PORT,
    "connection.sni": connection.SNI,
    EXPERIMENTAL: connection.METADATA,
    "request.auth.principal": claims.REQUEST_PRINCIPAL,
    "request.auth.audiences": claims.AUDIENCES,
    "request.auth.presenter": claims.PRESENTER,
    "request.auth.claims": claims.CLAIM,
    "request.headers": http.HEADER,
    # These three are fields of `operation` only, never `when` keys.
    "operation.host": http.HOST,
    "operation.method": http.METHOD,
    "operation.path": http.PATH,
}
CONDITION_KEYS: Final = frozenset(key for key in ATTRIBUTES if not key.startswith("operation."))

SOURCE_FIELDS: Final[Mapping[str, str]] = {
    "principals": "source.principal",
    "namespaces": "source.namespace",
    "serviceAccounts": "source.serviceAccount",
    "trustDomains": "source.trustDomain",
    "requestPrincipals": "request.auth.principal",
    "ipBlocks": "source.ip",
    "remoteIpBlocks": "remote.ip",
}
OPERATION_FIELDS: Final[Mapping[str, str]] = {
    "hosts": "operation.host",
    "methods": "operation.method",
    "paths": "operation.path",
    "ports": "destination.port",
}

# CUSTOM runs before authentication, so it cannot ask who the peer or the user is.
IDENTITY_ATTRIBUTES: Final = frozenset(key for key in ATTRIBUTES if key.startswith(("request.auth.", "source."))) - {
    "source.ip"
}
