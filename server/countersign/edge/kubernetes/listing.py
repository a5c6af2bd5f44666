"""One collection as it is now, and a whole cluster, read once for who does not watch it."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final, NamedTuple

import httpx2

from countersign.edge.kubernetes.address import Cluster, ClusterError
from countersign.edge.kubernetes.api import PLURALS, VERSIONS, ApiError, Collection, pages
from countersign.edge.kubernetes.connect import connect
from countersign.edge.kubernetes.objects import Objects, refuse_too_many, texts_of

_SECONDS: Final = 60.0  # for all of it


class Listed(NamedTuple):
    """The texts of all objects by their names, the API version that is served, and the resource version of the list."""

    texts: Mapping[str, str]
    version: str
    since: str


async def listed(client: httpx2.AsyncClient, collection: Collection) -> Listed:
    """The whole collection, in the first version that is served. Raise `ApiError`."""
    for version in VERSIONS:
        try:
            return await _listed(client, collection, version)
        except ApiError as fault:
            if not fault.is_not_served:
                raise
    raise ApiError(f"neither {' nor '.join(VERSIONS)} of it is served: are Istio's CRDs installed?", 404)


async def _listed(client: httpx2.AsyncClient, collection: Collection, version: str) -> Listed:
    texts: dict[str, str] = {}
    characters, since = 0, ""
    async with aclosing(pages(client, collection.path(version))) as found:
        async for page in found:
            more = await asyncio.to_thread(texts_of, collection.kind, version, page.objects)
            texts |= more
            characters += sum(map(len, more.values()))
            refuse_too_many(len(texts), characters)
            since = page.resource_version
    return Listed(texts, version, since)


def collections_of(cluster: Cluster) -> list[Collection]:
    """Everything that is read of it."""
    return [Collection(kind, namespace) for namespace in cluster.namespaces or ("",) for kind in PLURALS]


def read_cluster(cluster: Cluster) -> Mapping[str, str]:
    """Every object's text by its name, as it is now: nothing is tried twice. Raise `ClusterError`."""
    return asyncio.run(_read(cluster))


async def _read(cluster: Cluster) -> Mapping[str, str]:
    collections = collections_of(cluster)
    objects = Objects(collections)
    collection = collections[0]
    try:
        async with asyncio.timeout(_SECONDS), connect(cluster) as client:
            for collection in collections:
                objects.replace(collection, (await listed(client, collection)).texts)
    except ApiError as error:
        raise ClusterError(f"{cluster}: {f'{collection}: ' if error.status else ''}{error}") from error
    except ClusterError as error:
        raise ClusterError(f"{cluster}: {error}") from error
    except TimeoutError as error:
        raise ClusterError(f"{cluster}: not all of it could be read within {_SECONDS:g} s") from error
    return objects.texts() or {}
