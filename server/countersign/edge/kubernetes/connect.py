"""A client of the API server with the credentials of a pod or of a kubeconfig. Lightkube lives here and nowhere else.

It reads them and keeps the token fresh. Its own watch is not used: it forgets what was deleted while it was away
(after 410 it starts anew, and never lists), asks for no bookmarks, and waits for ever on a connection that is dead.
"""

import logging
import os
import threading
from typing import Final

import httpx2
from lightkube import ConfigError, KubeConfig, SingleConfig
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG

from countersign.edge.kubernetes.address import Cluster, ClusterError

logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would tell each request, and we tell what changed

_TIMEOUT: Final = 10.0  # seconds for a connection, and between two pieces of an answer
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# Whatever goes wrong between here and the server, and in reading the credentials for a request.
FAULTS: Final = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ConfigError, OSError)


_one = threading.Lock()  # msgspec, which reads a kubeconfig, crashes where two threads meet a type for the first time


def connect(cluster: Cluster) -> httpx2.AsyncClient:
    """A client with what the credentials' files say now. Raise `ClusterError`. Reads files; from any thread."""
    with _one:
        return _connect(cluster)


def _connect(cluster: Cluster) -> httpx2.AsyncClient:
    try:
        config = _config(cluster)
        _refuse_unproven(config)
        return AsyncClient(config, ConnectionParams(timeout=httpx2.Timeout(_TIMEOUT)))
    except ClusterError:
        raise
    # Lightkube reads a kubeconfig as it comes: what is missing in it is a KeyError, what is of another type is a
    # TypeError, ValueError or AttributeError, and what is no YAML is an error of its parser.
    except Exception as error:
        raise ClusterError(f"the credentials cannot be used: {type(error).__name__}: {error}") from error


def _config(cluster: Cluster) -> SingleConfig:
    if cluster.kubeconfig is not None:
        found = KubeConfig.from_file(cluster.kubeconfig)
    elif cluster.context:
        found = KubeConfig.from_file(os.environ.get("KUBECONFIG", DEFAULT_KUBECONFIG))
    else:
        found = KubeConfig.from_env()
    config = found.get(cluster.context or None)
    if config is None:
        raise ClusterError("the kubeconfig has no current context; name one with context=")
    return config


def _refuse_unproven(config: SingleConfig) -> None:
    """Policies say who may pass: they come from a server that has proven who it is, or from this machine."""
    server = httpx2.URL(config.cluster.server)
    if config.cluster.insecure:
        raise ClusterError(
            f"`insecure-skip-tls-verify` for {server}: whoever answers in its place would write the policies; "
            "say `certificate-authority`"
        )
    if server.scheme != "https" and server.host not in _LOOPBACK:
        raise ClusterError(f"the server {server} is asked in plaintext: say https")
    if config.user is None:
        raise ClusterError(f"the context `{config.context_name}` names no user")
