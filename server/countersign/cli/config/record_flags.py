"""The flags about the log of decisions. In a file they are the fields of ``audit``."""

import argparse
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from countersign.cli.config.key_flags import duration
from countersign.edge.keys.url import HttpUrl, UrlError
from countersign.policy.problems import did_you_mean
from countersign.record.mask import MASKABLE
from countersign.record.settings import (
    CHECKPOINT_EVERY,
    CHECKPOINT_INTERVAL,
    QUEUE,
    SPOOL_SIZE,
    Collector,
    Destination,
    LogFile,
    Mode,
    RecordSettings,
    RecordSettingsError,
    Stdout,
    Sync,
)
from countersign.settings import SettingsError

_MEGABYTE: Final = 1024 * 1024
_WAYS: Final = "stdout, file:PATH or https://HOST/PATH"


def add_record_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `RecordSettings`."""
    add = parser.add_argument
    add(
        "--decision-log",
        dest="audit_log",
        metavar="TO",
        type=_destination,
        default=None,
        help=f"a JSON line for each decision, to {_WAYS} (default: none)",
    )
    add(
        "--audit-mode",
        type=Mode,
        choices=list(Mode),
        default=Mode.DROP,
        help="when the log cannot keep up: drop records and count them, or block, which denies the requests",
    )
    add(
        "--audit-sample-allows",
        metavar="SHARE",
        type=_share,
        default=Decimal(1),
        help="of allowed requests, the share that is recorded; denied ones all are (default: %(default)s)",
    )
    add(
        "--audit-mask",
        metavar="POINTER",
        type=_pointer,
        action="append",
        default=[],
        help="erase this from every record, such as /input/token/sub; repeatable",
    )
    add("--audit-chain", action="store_true", help="chain the lines, so that `countersign log verify` finds changes")
    add("--audit-signing-key", metavar="FILE", type=Path, default=None, help="Ed25519 key (PEM) that signs the chain")
    add(
        "--audit-checkpoint-every",
        metavar="N",
        type=_number(1, 1_000_000),
        default=CHECKPOINT_EVERY,
        help="lines between two signatures (default: %(default)s)",
    )
    add(
        "--audit-checkpoint-interval",
        metavar="TIME",
        type=duration("1s", "1d"),
        default=CHECKPOINT_INTERVAL,
        help="or time between them, if that is shorter (default: 10s)",
    )
    add(
        "--audit-sync",
        type=Sync,
        choices=list(Sync),
        default=Sync.SECOND,
        help="when a file is forced to the disk: after each write, once a second, or by the system",
    )
    add(
        "--audit-queue",
        metavar="N",
        type=_number(1, 1_000_000),
        default=QUEUE,
        help="decisions that may wait to be written (default: %(default)s)",
    )
    add("--audit-spool", metavar="DIR", type=Path, default=None, help="where records wait for a collector")
    add(
        "--audit-spool-size",
        metavar="MB",
        type=_number(1, 1_000_000),
        default=SPOOL_SIZE // _MEGABYTE,
        help="of them at most so much, compressed (default: %(default)s)",
    )
    add("--audit-ca-file", metavar="FILE", type=Path, default=None, help="PEM of the collector's authorities")
    add("--audit-token-file", metavar="FILE", type=Path, default=None, help="bearer token for the collector")


def record_of(arguments: argparse.Namespace) -> RecordSettings | None:
    """What the flags say; None if there is to be no log. Raise `SettingsError`."""
    if arguments.audit_log is None:
        if arguments.audit_chain or arguments.audit_mode is Mode.BLOCK:
            raise SettingsError(f"--audit-chain, --audit-mode block: there is no log; say --decision-log {_WAYS}")
        return None
    try:
        return RecordSettings(
            to=arguments.audit_log,
            mode=arguments.audit_mode,
            queue=arguments.audit_queue,
            sample_allows=float(arguments.audit_sample_allows),
            mask=tuple(arguments.audit_mask),
            sync=arguments.audit_sync,
            chain=arguments.audit_chain,
            key_file=arguments.audit_signing_key,
            checkpoint_every=arguments.audit_checkpoint_every,
            checkpoint_interval=arguments.audit_checkpoint_interval,
            spool=arguments.audit_spool,
            spool_size=arguments.audit_spool_size * _MEGABYTE,
            ca_file=arguments.audit_ca_file,
            token_file=arguments.audit_token_file,
        )
    except RecordSettingsError as error:
        raise SettingsError(str(error)) from error


def _destination(text: str) -> Destination:
    if text == "stdout":
        return Stdout()
    if text.startswith("file:") and text != "file:":
        return LogFile(Path(text.removeprefix("file:")))
    try:
        return Collector(HttpUrl.parse(text))
    except UrlError as error:
        raise argparse.ArgumentTypeError(f"`{text}` is none of {_WAYS}") from error


def _share(text: str) -> Decimal:
    try:
        share = Decimal(text)
    except InvalidOperation:
        share = Decimal(-1)
    if not share.is_finite() or not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no share, 0 to 1")
    return share


def _pointer(text: str) -> str:
    if text not in MASKABLE:
        advice = did_you_mean(text, MASKABLE)
        raise argparse.ArgumentTypeError(f"`{text}` is no part of a record that can be erased; {advice or _EXAMPLES}")
    return text


_EXAMPLES: Final = "such as /input/token/sub, /input/source/address or /input/request/path"


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"`{text}` is no number from {least} to {most}")
        return int(text)

    return read
