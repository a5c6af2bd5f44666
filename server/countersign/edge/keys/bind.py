"""Which rule's keys come which way: the operator's configuration applied to the policies' rules."""

from collections.abc import Sequence
from dataclasses import replace

from countersign.core.jwt_rule import FileKeys, JwtRule, KeySource, RemoteKeys
from countersign.edge.keys.access import IssuerKeys
from countersign.policy.resources import Resources


def bind(resources: Resources, issuers: Sequence[IssuerKeys]) -> Resources:
    """The same resources, each remote key set with its configured way, or replaced by its configured file.

    An entry is for the rules of its ``issuer``, or of its ``jwks_uri``; the first that fits counts. Keys that a policy
    has inline are left alone.
    """
    if not issuers:
        return resources
    return replace(
        resources,
        request_authentications=tuple(
            replace(resource, rules=tuple(replace(rule, keys=_keys(rule, issuers)) for rule in resource.rules))
            for resource in resources.request_authentications
        ),
    )


def _keys(rule: JwtRule, issuers: Sequence[IssuerKeys]) -> KeySource:
    keys = rule.keys
    if not isinstance(keys, RemoteKeys):
        return keys
    for entry in issuers:
        if (entry.issuer and entry.issuer == rule.issuer) or (entry.jwks_uri and entry.jwks_uri == keys.uri):
            return replace(keys, access=entry.name) if entry.jwks_file is None else FileKeys(str(entry.jwks_file))
    return keys
