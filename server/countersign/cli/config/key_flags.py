"""The flags about keys: how long they count, how often they are fetched, where copies survive a restart."""

import argparse
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from countersign.edge.keys.access import IssuerKeys, KeySettings, Network
from countersign.tokens.keyring import KeyTimes

_DURATION: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIMES: Final = KeyTimes()


def add_key_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `KeySettings`."""
    add = parser.add_argument
    add(
        "--keys-cache-directory",
        metavar="DIR",
        type=Path,
        default=None,
        help="copies of fetched keys, for a restart while an issuer is down (default: none)",
    )
    add(
        "--keys-max-stale",
        metavar="TIME",
        type=duration("10m", "30d"),
        default=_TIMES.max_stale,
        help="how long the last good keys count while fetches fail (default: 24h)",
    )
    add(
        "--keys-refresh",
        metavar="TIME",
        type=duration("1m", "1d"),
        default=_TIMES.refresh,
        help="between fetches, if the issuer does not say (default: 20m)",
    )
    add(
        "--keys-cooldown",
        metavar="TIME",
        type=duration("1s", "1h"),
        default=_TIMES.cooldown,
        help="between fetches for the sake of unknown keys (default: 30s)",
    )
    add(
        "--keys-blocked-address",
        metavar="CIDR",
        type=network,
        action="append",
        default=[],
        help="keys are never fetched from there; repeatable (always: link-local, cloud metadata)",
    )


def keys_of(arguments: argparse.Namespace, issuers: tuple[IssuerKeys, ...]) -> KeySettings:
    """What the flags say, and the issuers of the file."""
    blocked = tuple(arguments.keys_blocked_address)
    return KeySettings(
        times=KeyTimes(
            refresh=arguments.keys_refresh, cooldown=arguments.keys_cooldown, max_stale=arguments.keys_max_stale
        ),
        cache_directory=arguments.keys_cache_directory,
        blocked=blocked,
        issuers=tuple(replace(entry, access=replace(entry.access, blocked=blocked)) for entry in issuers),
    )


def network(text: str) -> Network:
    """An address or a range of them."""
    try:
        return ip_network(text)
    except ValueError as error:
        wrong = f"`{text}` is no address or range, such as 10.0.0.0/8 (no bits beyond the prefix)"
        raise argparse.ArgumentTypeError(wrong) from error


def duration(least: str, most: str) -> Callable[[str], float]:
    """What reads a time between two, in seconds."""

    def read(text: str) -> float:
        seconds = _seconds(text)
        if seconds is None or not (_seconds(least) or 0) <= seconds <= (_seconds(most) or 0):
            raise argparse.ArgumentTypeError(f"`{text}` is no time from {least} to {most}, such as 90s, 20m or 24h")
        return seconds

    return read


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text)
    return float(int(match[1]) * _SECONDS[match[2]]) if match else None
