"""Masks: what an operator wants erased from every record, by JSON pointer (RFC 6901), listed in ``erased`` as OPA does.

A pointer that names nothing would leave in the log what somebody meant to keep out of it, so only known ones are taken.
"""

from collections.abc import Sequence
from typing import Final

from countersign.record.entry import Record

MASKABLE: Final = (
    "/trace_id",
    "/span_id",
    "/input",
    "/input/source",
    "/input/source/address",
    "/input/source/port",
    "/input/source/principal",
    "/input/destination",
    "/input/destination/address",
    "/input/destination/port",
    "/input/destination/principal",
    "/input/destination/workload",
    "/input/destination/workload/gateway",
    "/input/destination/workload/labels",
    "/input/destination/workload/namespace",
    "/input/destination/workload/services",
    "/input/request",
    "/input/request/host",
    "/input/request/id",
    "/input/request/method",
    "/input/request/path",
    "/input/request/scheme",
    "/input/sni",
    "/input/token",
    "/input/token/iss",
    "/input/token/sub",
    "/result/detail",
)


def masked(record: Record, pointers: Sequence[str]) -> Record:
    """Erase from a record, in place, and say what was there. Of what a pointer does not find, nothing is said."""
    erased = [pointer for pointer in pointers if _erase(record, pointer[1:].split("/"))]
    if erased:
        record["erased"] = erased
    return record


def _erase(record: Record, names: Sequence[str]) -> bool:
    *way, last = names
    for name in way:
        found = record.get(name)
        if not isinstance(found, dict):
            return False
        record = found
    return record.pop(last, None) is not None
