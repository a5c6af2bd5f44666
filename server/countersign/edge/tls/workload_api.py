"""Certificates from a SPIFFE Workload API, as long as its stream says something new.

Ours, because grpcio is here anyway and one streaming call is all that is wanted. Source: SPIFFE_Workload_API.md
sections 4 (the header, the stream) and 5 (the profile of X.509 SVIDs), workloadapi.proto.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import grpc
from google.protobuf.message import DecodeError

from countersign.certificates.read import CertificateError
from countersign.certificates.served import Served, served_from_der
from countersign.core.certificate import why_no_workload
from countersign.core.spiffe import SpiffeId
from countersign.edge.addresses import UnixAddress
from countersign.wire.workload_pb2 import X509SVIDRequest, X509SVIDResponse

METHOD: Final = "/SpiffeWorkloadAPI/FetchX509SVID"

_METADATA: Final = (("workload.spiffe.io", "true"),)  # 4.1: without it no server answers
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_FIRST_PAUSE: Final = 0.1  # seconds, doubled after each stream that brought nothing
_LAST_PAUSE: Final = 10.0


async def from_workload_api(
    socket: UnixAddress, callers: frozenset[SpiffeId], stop: asyncio.Event
) -> AsyncIterator[Served | str]:
    """What the API gives, and why nothing of it can be used; until ``stop``. A lost API is called again and again."""
    pause = _FIRST_PAUSE
    while not stop.is_set():
        async with grpc.aio.insecure_channel(str(socket), options=_OPTIONS) as channel:
            call = channel.unary_stream(METHOD, X509SVIDRequest.SerializeToString, bytes)(
                X509SVIDRequest(), metadata=_METADATA
            )
            ended_early = asyncio.create_task(_cancel_at(stop, call), name="stop of the workload API")
            why = "the stream has ended"
            try:
                async for octets in call:
                    offer = _offer(octets, callers)
                    pause = _FIRST_PAUSE if isinstance(offer, Served) else pause
                    yield offer if isinstance(offer, Served) else f"{socket}: {offer}"
            except grpc.aio.AioRpcError as error:
                why = f"{error.code().name}: {error.details()}"
            except asyncio.CancelledError:
                if not stop.is_set():  # not the call, but whoever waits for it
                    raise
            finally:
                ended_early.cancel()
        if not stop.is_set():
            yield f"{socket}: {why}"
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            pause = min(2 * pause, _LAST_PAUSE)


async def _cancel_at(stop: asyncio.Event, call: grpc.aio.Call) -> None:
    await stop.wait()
    call.cancel()


def _offer(octets: bytes, callers: frozenset[SpiffeId]) -> Served | str:
    try:
        response = X509SVIDResponse.FromString(octets)
    except DecodeError:
        return "an answer that is no X509SVIDResponse"
    if not response.svids:
        return "an answer without an SVID"
    svid = response.svids[0]  # 5.2.1: the first is the default identity
    try:
        served = served_from_der(svid.x509_svid, svid.x509_svid_key, svid.bundle, time.time())
    except CertificateError as error:
        return str(error)
    why = why_no_workload(served.leaf)
    if why:
        return f"the certificate is no SVID: {why}"
    mine = SpiffeId.parse(served.leaf.uris[0])
    # The bundle vouches for its own trust domain only, and a handshake cannot tell for whom an authority may speak.
    foreign = sorted(str(caller) for caller in callers if caller.trust_domain != mine.trust_domain)
    if foreign:
        return f"--tls-allow-client {foreign[0]} is of another trust domain than {mine}, and cannot be vouched for"
    return served
