"""The parts of a configuration that can be asked for."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from countersign.proxy.bootstrap import sidecar_bootstrap
from countersign.proxy.callout import authorizer_cluster, ext_authz_filter, workload_settings
from countersign.proxy.envoy_api import route
from countersign.proxy.sidecar import Sidecar
from countersign.proxy.text import fields_of


def _full(sidecar: Sidecar) -> dict[str, Any]:
    return fields_of(sidecar_bootstrap(sidecar))


def _filter(sidecar: Sidecar) -> dict[str, Any]:
    """For the connection manager, and, if something is known of the workload, for its virtual hosts."""
    document: dict[str, Any] = {"http_filters": [fields_of(ext_authz_filter(sidecar))]}
    if sidecar.extensions:
        host = route.VirtualHost(typed_per_filter_config=workload_settings(sidecar))
        document |= fields_of(host)
    return document


def _cluster(sidecar: Sidecar) -> dict[str, Any]:
    return {"clusters": [fields_of(authorizer_cluster(sidecar))]}


PARTS: Final[Mapping[str, Callable[[Sidecar], dict[str, Any]]]] = {
    "full": _full,
    "filter": _filter,
    "cluster": _cluster,
}
