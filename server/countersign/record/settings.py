"""What `serve` was told about the log of decisions."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from countersign.edge.keys.url import HttpUrl, without_query

QUEUE: Final = 8192  # answers that wait to be written, at 2 KB to 4 KB each
SPOOL_SIZE: Final = 256 * 1024 * 1024  # octets, compressed: some two million records
CHECKPOINT_EVERY: Final = 1000  # records
CHECKPOINT_INTERVAL: Final = 10.0  # seconds
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class RecordSettingsError(ValueError):
    """Settings of the log that cannot be used together; the message names them and what is wanted."""


class Mode(StrEnum):
    """What happens to a check whose answer finds the queue full: answered and counted, or denied."""

    DROP = "drop"
    BLOCK = "block"


class Sync(StrEnum):
    """When the file is forced to the disk (fdatasync): after each write, at most once a second, or by the system."""

    ALWAYS = "always"
    SECOND = "second"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Stdout:
    """To standard output."""

    def __str__(self) -> str:
        return "stdout"


@dataclass(frozen=True, slots=True)
class LogFile:
    """To the end of a file."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path.absolute()}"


@dataclass(frozen=True, slots=True)
class Collector:
    """In batches to a collector, over HTTP. In the query may be a secret, so the text does not have it."""

    url: HttpUrl

    def __str__(self) -> str:
        return without_query(self.url.text)


Destination = Stdout | LogFile | Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """Everything that the log needs. Raise `RecordSettingsError` for what cannot work.

    ``sample_allows`` is the share of allowed requests that is written down. ``token_file`` has what authorizes us at
    the collector, ``key_file`` what signs the chain. ``stdout_lock`` is a file descriptor for `fcntl.lockf`, where
    several processes share standard output.
    """

    to: Destination
    mode: Mode = Mode.DROP
    queue: int = QUEUE
    sample_allows: float = 1.0
    mask: tuple[str, ...] = ()
    sync: Sync = Sync.SECOND
    chain: bool = False
    key_file: Path | None = None
    checkpoint_every: int = CHECKPOINT_EVERY
    checkpoint_interval: float = CHECKPOINT_INTERVAL
    spool: Path | None = None
    spool_size: int = SPOOL_SIZE
    ca_file: Path | None = None
    token_file: Path | None = None
    stdout_lock: int | None = None

    def __post_init__(self) -> None:
        """Hold the settings against each other."""
        collector = isinstance(self.to, Collector)
        if isinstance(self.to, Collector) and self.to.url.scheme != "https" and self.to.url.host not in _LOOPBACK:
            raise RecordSettingsError(
                f"--decision-log {self.to}: who calls what would cross the network in plaintext; say https"
            )
        if isinstance(self.to, Collector) and self.spool is None:
            raise RecordSettingsError(
                f"--decision-log {self.to}: say by --audit-spool DIR where records wait while it is away"
            )
        if collector and self.chain:
            raise RecordSettingsError(
                "--audit-chain: for stdout and files; a collector does not keep the octets that a chain is of"
            )
        if self.key_file is not None and not self.chain:
            raise RecordSettingsError(f"--audit-signing-key {self.key_file}: signs the chain; say --audit-chain too")
        for flag, path in (("spool", self.spool), ("ca-file", self.ca_file), ("token-file", self.token_file)):
            if path is not None and not collector:
                raise RecordSettingsError(f"--audit-{flag} {path}: only for --decision-log https://...")

    def of_worker(self, number: int) -> "RecordSettings":
        """Those of one of several workers, counted from 0: ``decisions.jsonl`` becomes ``decisions-0.jsonl``."""
        match self.to:
            case LogFile(path=path):
                return replace(self, to=LogFile(path.with_name(f"{path.stem}-{number}{path.suffix}")))
            case Collector() if self.spool is not None:
                return replace(self, spool=self.spool / str(number))
            case _:
                return self
