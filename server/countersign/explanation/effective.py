"""What applies to a workload: policies by action, the mTLS mode of its ports, the issuers of its tokens.

The fields of these classes are the keys of the JSON: a name that is there stays there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from countersign.policy.resources import Action, AuthorizationPolicy, Meta, RequestAuthentication, Resources
from countersign.policy.scope import PortMode, attaches, scope
from countersign.policy.workload import Workload, WorkloadError, workload_of

# In the order in which they are asked.
_ORDER: Final = (Action.CUSTOM, Action.AUDIT, Action.DENY, Action.ALLOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One AuthorizationPolicy; ``policy`` is ``name.namespace``, as `istioctl` writes it, ``rules`` are their IDs."""

    action: str
    policy: str
    rules: tuple[str, ...]
    dry_run: bool
    provider: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """One RequestAuthentication and the issuers of the tokens that it takes."""

    policy: str
    issuers: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """The mode of a port, of every other one if ``port`` is null; ``policy`` is empty where Istio's default stands."""

    port: int | None
    mode: str
    policy: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """Everything that applies to one workload. Without an ALLOW policy, whatever none of the others denies passes."""

    namespace: str
    labels: Mapping[str, str]
    gateway: str
    authorization_policies: tuple[Policy, ...]
    request_authentications: tuple[Requests, ...]
    peer_authentication: tuple[Mode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One resource, whatever it applies to. ``action`` is empty where there is none."""

    kind: str
    policy: str
    action: str
    dry_run: bool
    selector: Mapping[str, str]
    targets: tuple[str, ...]
    source: str


def workload_named(name: str, labels: Iterable[tuple[str, str]] = ()) -> Workload:
    """The workload ``NS/APP``, which has the label app=APP; only ``NS`` for one without. Raise `WorkloadError`."""
    namespace, slash, app = name.partition("/")
    given = tuple(labels)
    if not namespace or (slash and not app) or "/" in app:
        raise WorkloadError(f"`{name}`: wants NS/APP, such as apps/httpbin, or NS")
    found = {**dict(given), "app": app} if app else dict(given)
    if len(dict(given)) != len(given) or any(found[key] != value for key, value in given):
        raise WorkloadError(f"`{name}`: its labels say something else, or a label twice")
    return workload_of(namespace, tuple(sorted(found.items())))


def label(text: str) -> tuple[str, str]:
    """Read ``K=V``. Raise `WorkloadError`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise WorkloadError(f"`{text}`: wants K=V, such as version=v1")
    return key, value


def effective(resources: Resources, workload: Workload, root_namespace: str) -> Effective:
    """What applies to the workload."""
    applied = scope(resources, workload, root_namespace)
    http = applied.http
    by_action = dict(zip(_ORDER, (http.custom, http.audit, http.deny, http.allow), strict=True))
    policies = (*(policy for action in _ORDER for policy in by_action[action]), *http.tried)
    return Effective(
        namespace=workload.namespace,
        labels=dict(workload.labels),
        gateway=workload.gateway,
        authorization_policies=tuple(map(_policy, policies)),
        request_authentications=tuple(
            _requests(each)
            for each in resources.request_authentications
            if attaches(each.meta, workload, root_namespace)
        ),
        peer_authentication=(
            _mode(None, applied.mtls),
            *(_mode(port, mode) for port, mode in sorted(applied.mtls_by_port.items())),
        ),
    )


def from_json(value: Any) -> Effective:  # noqa: ANN401 (whatever it is)
    """Read back what `dataclasses.asdict` made of one. Raise OSError if it is something else."""
    try:
        found = Effective(
            namespace=str(value["namespace"]),
            labels={str(key): str(each) for key, each in value["labels"].items()},
            gateway=str(value["gateway"]),
            authorization_policies=tuple(
                Policy(**{**each, "rules": tuple(each["rules"])}) for each in value["authorization_policies"]
            ),
            request_authentications=tuple(
                Requests(**{**each, "issuers": tuple(each["issuers"])}) for each in value["request_authentications"]
            ),
            peer_authentication=tuple(Mode(**each) for each in value["peer_authentication"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise OSError("the answer is not that of the admin API; is it the same version?") from error
    return found


def listed(resources: Resources) -> tuple[Listed, ...]:
    """Every resource, in the order of the files."""
    return (
        *(_listed("PeerAuthentication", each.meta) for each in resources.peer_authentications),
        *(_listed("RequestAuthentication", each.meta) for each in resources.request_authentications),
        *(
            _listed("AuthorizationPolicy", each.meta, each.action, dry_run=each.dry_run)
            for each in resources.authorization_policies
        ),
    )


def _policy(policy: AuthorizationPolicy) -> Policy:
    return Policy(
        action=policy.action,
        policy=_name(policy.meta),
        rules=tuple(map(policy.rule_id, policy.rules)),
        dry_run=policy.dry_run,
        provider=policy.provider,
        source=policy.meta.source,
    )


def _requests(resource: RequestAuthentication) -> Requests:
    issuers = dict.fromkeys(rule.issuer for rule in resource.rules)
    return Requests(policy=_name(resource.meta), issuers=tuple(issuers), source=resource.meta.source)


def _mode(port: int | None, mode: PortMode) -> Mode:
    namespace, _, name = mode.policy.partition("/")
    return Mode(port=port, mode=mode.mode, policy=f"{name}.{namespace}" if mode.policy else "", source=mode.source)


def _listed(kind: str, meta: Meta, action: str = "", *, dry_run: bool = False) -> Listed:
    return Listed(
        kind=kind,
        policy=_name(meta),
        action=action,
        dry_run=dry_run,
        selector=dict(meta.selector),
        targets=tuple(f"{target.kind}/{target.name}" for target in meta.targets),
        source=meta.source,
    )


def _name(meta: Meta) -> str:
    return f"{meta.name}.{meta.namespace}"
