"""Certificates in files, while they change: what is sound is taken, what is broken changes nothing and is said once."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from countersign.certificates.served import Served
from countersign.edge.tls.settings import TlsFiles, TlsSettings
from countersign.edge.tls.source import TlsError, TlsSource, TlsStanding

from tests.edge.tls.pki import ALLOWED, key_pem, new_authority, server_of, swap, times, write

LIMIT: Final = 10.0
CA = new_authority()
FIRST, SECOND = server_of(CA), server_of(CA)
Play = Callable[["Sourced"], object]


class Sourced:
    """A source that watches a directory, and everything that it has given."""

    def __init__(self, directory: Path) -> None:
        files = TlsFiles(certificate=directory / "tls.crt", key=directory / "tls.key", client_ca=directory / "ca.crt")
        self.directory = directory
        self.given: list[Served] = []
        self._news = asyncio.Event()
        self.source = TlsSource(TlsSettings(source=files, callers=ALLOWED), self.given.append, self._news.set)

    async def until(self, wish: Callable[[TlsStanding], bool]) -> TlsStanding:
        """Wait until the standing is so."""
        async with asyncio.timeout(LIMIT):
            while not wish(self.source.standing):
                self._news.clear()
                await self._news.wait()
        return self.source.standing


def watch(directory: Path, play: Callable[[Sourced], object]) -> Sourced:
    """Load, and play while it is watched."""

    async def run() -> Sourced:
        sourced, stop = Sourced(directory), asyncio.Event()
        await sourced.source.load(stop)
        watching = asyncio.create_task(sourced.source.watch())
        try:
            await play(sourced)  # type: ignore[misc]  # a coroutine
        finally:
            stop.set()
            await watching
        return sourced

    return asyncio.run(run())


def test_a_new_certificate_is_taken_and_an_unchanged_one_is_not_taken_again(tmp_path: Path) -> None:
    write(tmp_path, FIRST, CA)

    async def play(sourced: Sourced) -> None:
        write(tmp_path, FIRST, CA)
        write(tmp_path, SECOND, CA)
        await sourced.until(lambda standing: standing.rotations == 1)

    given = watch(tmp_path, play).given
    assert [served.chain for served in given] == [FIRST.pem.encode(), SECOND.pem.encode()]


def test_what_is_asked_for_is_read_now_and_said_also_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing watches: that is another's work, and takes its time."""
    caplog.set_level(logging.INFO)
    write(tmp_path, FIRST, CA)

    async def run() -> Sourced:
        sourced = Sourced(tmp_path)
        await sourced.source.reread()  # before anything was loaded
        await sourced.source.load(asyncio.Event())
        await sourced.source.reread()
        (tmp_path / "tls.key").write_bytes(b"none")
        for _ in range(2):
            await sourced.source.reread()
        assert "is refused" in sourced.source.standing.check(0.0).wrong
        write(tmp_path, SECOND, CA)
        await sourced.source.reread()
        return sourced

    sourced = asyncio.run(run())
    assert [served.chain for served in sourced.given] == [FIRST.pem.encode(), SECOND.pem.encode()]
    assert (sourced.source.standing.rotations, sourced.source.standing.problem) == (1, "")
    assert caplog.text.count("the TLS certificate is unchanged") == 1
    assert caplog.text.count("TLS certificate not loaded") == 2


def test_a_new_client_ca_is_taken(tmp_path: Path) -> None:
    write(tmp_path, FIRST, CA)
    other = new_authority("Other CA")

    async def play(sourced: Sourced) -> None:
        write(tmp_path, FIRST, other)
        await sourced.until(lambda standing: standing.rotations == 1)

    assert [served.authorities for served in watch(tmp_path, play).given] == [CA.pem.encode(), other.pem.encode()]


def test_a_swap_as_kubernetes_does_it_is_taken_at_once(tmp_path: Path) -> None:
    swap(tmp_path, "v1", FIRST, CA)

    async def play(sourced: Sourced) -> None:
        swap(tmp_path, "v2", SECOND, CA)
        standing = await sourced.until(lambda standing: standing.rotations == 1)
        assert standing.problem == ""

    assert len(watch(tmp_path, play).given) == 2


def _mismatched(directory: Path) -> str:
    (directory / "tls.key").write_bytes(key_pem(SECOND))
    return "the key is not the certificate's"


def _half_written(directory: Path) -> str:
    (directory / "tls.crt").write_text(SECOND.pem[:100])
    return "the certificate cannot be read"


def _gone(directory: Path) -> str:
    (directory / "ca.crt").unlink()
    return "No such file"


def _expired(directory: Path) -> str:
    write(directory, server_of(CA, **times(-60, -1)), CA)
    return "the certificate has expired"


def _too_large(directory: Path) -> str:
    (directory / "ca.crt").write_text(CA.pem * 2000)
    return "larger than"


@pytest.mark.parametrize("damage", [_mismatched, _half_written, _gone, _expired, _too_large])
def test_what_is_broken_leaves_the_old_one_in_use_and_is_said_once_until_it_is_mended(
    tmp_path: Path, damage: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path, FIRST, CA)

    async def play(sourced: Sourced) -> None:
        before = sourced.source.standing
        why = damage(tmp_path)
        broken = await sourced.until(lambda standing: why in standing.problem)
        assert (broken.not_after, broken.rotations) == (before.not_after, 0)
        check = broken.check(before.loaded)
        assert why in check.wrong
        assert not check.fails  # it takes no traffic away
        write(tmp_path, SECOND, CA)
        mended = await sourced.until(lambda standing: standing.rotations == 1)
        assert mended.problem == ""

    assert [served.chain for served in watch(tmp_path, play).given] == [FIRST.pem.encode(), SECOND.pem.encode()]
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert all("stays in use" in error for error in errors)
    assert len(errors) == len(set(errors))
    assert "PRIVATE KEY" not in caplog.text


def test_what_was_broken_and_is_as_before_again_is_no_rotation(tmp_path: Path) -> None:
    write(tmp_path, FIRST, CA)

    async def play(sourced: Sourced) -> None:
        _mismatched(tmp_path)
        await sourced.until(lambda standing: bool(standing.problem))
        write(tmp_path, FIRST, CA)
        await sourced.until(lambda standing: not standing.problem)

    assert len(watch(tmp_path, play).given) == 1


def test_an_expired_certificate_makes_it_not_ready() -> None:
    standing = TlsStanding(not_before=0.0, not_after=1000.0, loaded=1.0, problem="", rotations=0)

    assert standing.check(999.9).wrong == ""
    assert standing.check(1000.0).wrong == "the TLS certificate has expired at 1970-01-01T00:16:40+00:00"
    assert standing.check(1000.0).fails


@pytest.mark.parametrize("damage", [_mismatched, _half_written, _gone, _expired, _too_large])
def test_at_the_start_there_is_nothing_to_keep(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    write(tmp_path, FIRST, CA)
    why = damage(tmp_path)

    async def load() -> None:
        await Sourced(tmp_path).source.load(asyncio.Event())

    with pytest.raises(TlsError, match=why):
        asyncio.run(load())


def test_whoever_has_loaded_nothing_has_nothing_to_watch(tmp_path: Path) -> None:
    async def run() -> None:
        await Sourced(tmp_path).source.watch()

    with pytest.raises(TlsError, match="nothing has been loaded"):
        asyncio.run(run())
