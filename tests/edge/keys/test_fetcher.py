"""Key sets are fetched when the keyring wants it, once for everybody, and no failure ends the fetching."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from countersign.core.jwt_rule import FetchedKeys, FileKeys, RemoteKeys
from countersign.edge.keys.access import Access, IssuerKeys, KeySettings
from countersign.edge.keys.fetcher import KeyFetcher
from countersign.edge.keys.saved import path_of
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.tokens.keyring import KeyTimes, Origin, SourceState
from countersign.tokens.keys import KeySet

from tests.edge.keys.issuing import ISSUER, JWKS, KIDS, answer, certificate, raw, run, until


class Changes(list[Mapping[FetchedKeys, KeySet]]):
    """Every mapping that `on_change` was given."""

    def latest(self, source: FetchedKeys) -> list[str]:
        keys = self[-1].get(source) if self else None
        return [key.kid for key in keys.keys] if keys else []


@contextlib.asynccontextmanager
async def fetching(
    *sources: FetchedKeys,
    settings: KeySettings = KeySettings(),  # noqa: B008 (frozen)
) -> AsyncIterator[tuple[KeyFetcher, Changes]]:
    changes = Changes()
    fetcher = KeyFetcher(changes.append, settings)
    await fetcher.recall(sources)
    fetcher.track(sources)
    task = asyncio.create_task(fetcher.run())
    try:
        yield fetcher, changes
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def state(fetcher: KeyFetcher) -> SourceState:
    (only,) = fetcher.states()
    return only


def test_fetches_what_is_tracked_and_tells() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                assert changes.latest(source) == KIDS
                assert server.fetches == 1
                assert (state(fetcher).error, state(fetcher).failures) == ("", 0)
                assert state(fetcher).origin is Origin.FETCHED

    run(test)


def test_tracks_more_and_less_while_it_runs() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as one, IssuerServer(ISSUER) as two:
            first, second = RemoteKeys(one.jwks_uri), RemoteKeys(two.jwks_uri)
            async with fetching() as (fetcher, changes):
                fetcher.track([first])
                await until(lambda: changes and first in changes[-1])
                fetcher.track([second])
                assert changes[-1] == {}
                await until(lambda: second in changes[-1])
                assert (one.fetches, two.fetches) == (1, 1)

    run(test)


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("public, max-age=600", 600),
        ("MAX-AGE=600", 600),
        ("s-maxage=600", 1200),
        ("no-store", 60),
        ("no-cache", 60),
        ("max-age=0", 60),
        ("max-age=999999999", 43200),
    ],
)
def test_takes_the_interval_from_the_issuer(cache_control: str, seconds: float) -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.headers = {"Cache-Control": cache_control}
            async with fetching(RemoteKeys(server.jwks_uri)) as (fetcher, changes):
                await until(lambda: changes)
                due = state(fetcher).refresh_in
                assert due is not None
                assert seconds * 0.89 < due <= seconds

    run(test)


def test_an_issuer_that_asks_to_be_left_alone_is_not_asked_for_a_missed_key_either() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.status, server.headers = 429, {"Retry-After": "300"}
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, _):
                await until(lambda: state(fetcher).error)
                due = state(fetcher).refresh_in
                assert due is not None
                assert 299 < due <= 331
                assert fetcher.refresh(source) is None
                assert server.fetches == 1

    run(test)


# A missed key


def test_a_missed_key_is_fetched_once_for_everybody_who_waits() -> None:
    async def test() -> None:
        issuer = Issuer("https://issuer.test")
        with IssuerServer(issuer) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                issuer.rotate("ES256")
                waits = [fetcher.refresh(source) for _ in range(100)]
                assert all(wait is not None for wait in waits)
                assert waits[0] is not None
                waits[0].cancel()  # one who gives up stops nobody
                await asyncio.gather(*(wait for wait in waits[1:] if wait))
                assert issuer.kid("ES256") in changes.latest(source)
                assert server.fetches == 2

    run(test)


@pytest.mark.parametrize("keep_old", [True, False])
def test_keys_are_swapped_as_a_whole_and_those_that_stay_are_the_same_objects(keep_old: bool) -> None:
    async def test() -> None:
        issuer = Issuer("https://issuer.test")
        with IssuerServer(issuer) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                before, gone = changes[-1][source], issuer.kid("ES256")
                issuer.rotate("ES256", keep_old=keep_old)
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                after = changes[-1][source]
                assert [key.kid for key in before.keys] == [key.kid for key in changes[-2][source].keys]
                assert (gone in changes.latest(source)) is keep_old
                assert issuer.kid("ES256") in changes.latest(source)
                kept = {id(key) for key in before.keys} & {id(key) for key in after.keys}
                assert len(kept) == len(before.keys) - (not keep_old)

    run(test)


def test_within_the_cooldown_there_is_nothing_to_wait_for() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                server.status = 500
                first = fetcher.refresh(source)
                assert first is not None
                await first
                assert state(fetcher).error == "status 500"
                assert [fetcher.refresh(source) for _ in range(1000)] == [None] * 1000
                assert fetcher.refresh(RemoteKeys("https://stranger.test")) is None
                assert server.fetches == 2
                assert changes.latest(source) == KIDS  # the old keys stay

    run(test)


def test_the_cooldown_is_the_configured_one() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            settings = KeySettings(times=KeyTimes(cooldown=0.0))
            async with fetching(source, settings=settings) as (fetcher, changes):
                await until(lambda: changes)
                for _ in range(3):
                    wait = fetcher.refresh(source)
                    assert wait is not None
                    await wait
                assert server.fetches == 4

    run(test)


def test_the_first_token_waits_for_the_first_fetch() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.delay = 0.02
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                assert changes.latest(source) == KIDS
                assert server.fetches == 1

    run(test)


def test_a_source_that_is_dropped_and_tracked_again_meanwhile_is_fetched_once() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.delay = 0.05
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: server.fetches)
                fetcher.track([])
                fetcher.track([source])
                await until(lambda: changes)
                assert changes.latest(source) == KIDS
                assert server.fetches == 1

    run(test)


def test_an_answer_for_a_dropped_source_is_dropped() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server, IssuerServer(ISSUER) as other:
            server.delay = 0.02
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                wait = fetcher.refresh(source)
                assert wait is not None
                fetcher.track([RemoteKeys(other.jwks_uri)])
                await wait
                await until(lambda: changes)
                assert list(changes[-1]) == [RemoteKeys(other.jwks_uri)]

    run(test)


def test_ending_ends_the_fetches_and_those_who_wait() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            server.delay = 60
            source = RemoteKeys(server.jwks_uri, timeout=60)
            async with fetching(source) as (fetcher, changes):
                wait = fetcher.refresh(source)
                await until(lambda: server.fetches)
            assert wait is not None
            await wait
            assert changes == []

    run(test)


# Failures


@pytest.mark.parametrize(
    ("body", "error"),
    [(b'{"keys":[]}', "no usable key among 0"), (b'{"keys":[{"kty":"oct","k":"AAAA"}]}', "no usable key among 1")],
)
def test_a_set_without_a_usable_key_is_a_failure_and_the_last_good_one_stays(body: bytes, error: str) -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source) as (fetcher, changes):
                await until(lambda: changes)
                server.body = body
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                assert (state(fetcher).error, changes.latest(source)) == (error, KIDS)

    run(test)


def test_one_failure_is_retried_and_harms_no_other_source() -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as bad, IssuerServer(ISSUER) as good:
            bad.status = 500
            failing, working = RemoteKeys(bad.jwks_uri), RemoteKeys(good.jwks_uri)
            async with fetching(failing, working) as (fetcher, changes):
                await until(lambda: changes and working in changes[-1])
                await until(lambda: fetcher.states()[0].error)
                bad.status = 200
                await until(lambda: failing in changes[-1])  # after a second or a little more
                assert (bad.fetches, good.fetches) == (2, 1)

    run(test)


def test_an_issuer_that_dies_and_returns_is_seen_again() -> None:
    async def test() -> None:
        settings = KeySettings(times=KeyTimes(cooldown=0.0))
        with IssuerServer(ISSUER) as server:
            port = int(server.jwks_uri.rpartition(":")[2].partition("/")[0])
            source = RemoteKeys(server.jwks_uri)
            fetcher_and_changes = fetching(source, settings=settings)
            fetcher, changes = await fetcher_and_changes.__aenter__()
            await until(lambda: changes)
        wait = fetcher.refresh(source)
        assert wait is not None
        await wait
        assert state(fetcher).error == "cannot connect: Connection refused"
        assert changes.latest(source) == KIDS
        issuer = Issuer("https://issuer.test")
        with IssuerServer(issuer, port=port):
            wait = fetcher.refresh(source)
            assert wait is not None
            await wait
            assert (state(fetcher).error, changes.latest(source)) == ("", [key["kid"] for key in issuer.jwks()["keys"]])
            await fetcher_and_changes.__aexit__(None, None, None)

    run(test)


def test_an_unchanged_set_is_confirmed_without_being_sent_and_nobody_is_told() -> None:
    async def test() -> None:
        settings = KeySettings(times=KeyTimes(cooldown=0.0))
        async with raw(answer(JWKS, 'ETag: "v1"')) as server:
            source = RemoteKeys(server.uri)
            async with fetching(source, settings=settings) as (fetcher, changes):
                await until(lambda: changes)
                server.octets = [answer(b"", status="304 Not Modified")]
                for _ in range(2):
                    wait = fetcher.refresh(source)
                    assert wait is not None
                    await wait
                assert ["if-none-match" in head.lower() for head in server.requests] == [False, True, True]
                age = state(fetcher).age
                assert age is not None
                assert (state(fetcher).error, len(changes), age < 5) == ("", 1, True)

    run(test)


# The configured way


def test_each_source_is_reached_its_configured_way(tmp_path: Path) -> None:
    async def test() -> None:
        own = certificate("localhost", tmp_path)
        async with raw(answer(), tls=own.context()) as server:
            uri = f"https://localhost:{server.port}/"
            private = RemoteKeys(uri, access="private")
            entry = IssuerKeys(name="private", access=Access(ca_file=own.certificate))
            async with fetching(private, RemoteKeys(uri), settings=KeySettings(issuers=(entry,))) as (fetcher, changes):
                await until(lambda: all(each.age is not None or each.error for each in fetcher.states()))
                assert changes.latest(private) == KIDS
                assert [each.error for each in fetcher.states()] == [
                    "",
                    "the certificate is not trusted: self-signed certificate",
                ]

    run(test)


# Files


def test_a_file_is_read_again_when_it_changes_and_the_last_good_set_stays(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "jwks.json"
        path.write_bytes(JWKS)
        source = FileKeys(str(path))
        async with fetching(source) as (fetcher, changes):
            await until(lambda: changes.latest(source) == KIDS)
            path.write_bytes(JWKS[:-5])  # somebody is writing it
            await until(lambda: state(fetcher).error)
            assert changes.latest(source) == KIDS
            other = Issuer("https://issuer.test")
            (tmp_path / "new.json").write_text(json.dumps(other.jwks()))
            (tmp_path / "new.json").rename(path)
            await until(lambda: changes.latest(source) == [key["kid"] for key in other.jwks()["keys"]])
            assert state(fetcher).error == ""
            path.unlink()
            await until(lambda: state(fetcher).error == "No such file or directory")
            assert changes.latest(source) == [key["kid"] for key in other.jwks()["keys"]]

    run(test)


def test_a_key_that_a_file_lacks_is_looked_for_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "jwks.json"
        path.write_bytes(JWKS)
        source = FileKeys(str(path))
        async with fetching(source) as (fetcher, changes):
            await until(lambda: changes)
            other = Issuer("https://issuer.test")
            path.write_text(json.dumps(other.jwks()))
            wait = fetcher.refresh(source)
            assert wait is not None
            await wait
            assert other.kid() in changes.latest(source)

    run(test)


# Copies


def test_a_copy_stands_in_until_the_issuer_answers(tmp_path: Path) -> None:
    async def test() -> None:
        settings = KeySettings(cache_directory=tmp_path)
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source, settings=settings) as (_, _):
                await until(lambda: path_of(tmp_path, source).exists())
            server.status = 500
            async with fetching(source, settings=settings) as (fetcher, changes):
                assert changes.latest(source) == KIDS  # before any fetch has ended
                assert state(fetcher).origin is Origin.SAVED
                await until(lambda: state(fetcher).error == "status 500")
                assert changes.latest(source) == KIDS
                server.status = 200
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                assert state(fetcher).origin is Origin.FETCHED
            elsewhere = RemoteKeys(server.jwks_uri + "?other")
            server.status = 500
            async with fetching(elsewhere, settings=settings) as (fetcher, changes):
                await until(lambda: state(fetcher).error)
                assert changes == []  # a copy is of one URL

    run(test)


def test_a_set_whose_issuer_wants_it_stored_nowhere_is_not_copied_and_its_old_copy_goes(tmp_path: Path) -> None:
    async def test() -> None:
        settings = KeySettings(cache_directory=tmp_path)
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source, settings=settings):
                await until(lambda: path_of(tmp_path, source).exists())
            server.headers = {"Cache-Control": "no-store"}
            async with fetching(source, settings=settings) as (_, changes):
                await until(lambda: changes)
                await until(lambda: not path_of(tmp_path, source).exists())
            assert os.listdir(tmp_path) == []  # noqa: PTH208 (the loop has nothing else to do)

    run(test)


def test_a_confirmed_set_has_a_confirmed_copy(tmp_path: Path) -> None:
    async def test() -> None:
        settings = KeySettings(cache_directory=tmp_path)
        async with raw(answer(JWKS, 'ETag: "v1"')) as server:
            source = RemoteKeys(server.uri)
            async with fetching(source, settings=settings):
                await until(lambda: path_of(tmp_path, source).exists())
            before = path_of(tmp_path, source).stat()
            server.octets = [answer(b"", status="304 Not Modified")]
            async with fetching(source, settings=settings) as (fetcher, _):
                await until(lambda: state(fetcher).origin is Origin.FETCHED)
                await until(lambda: path_of(tmp_path, source).stat().st_ino != before.st_ino)
                assert 'if-none-match: "v1"' in server.requests[-1].lower()
            server.octets = []
            async with fetching(source, settings=settings) as (_, changes):
                assert changes.latest(source) == KIDS

    run(test)


def test_a_directory_that_cannot_be_written_costs_a_line_and_no_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source, settings=KeySettings(cache_directory=tmp_path / "no")) as (_, changes):
                await until(lambda: changes)
                await until(lambda: "cannot be copied to" in caplog.text)
                assert changes.latest(source) == KIDS

    run(test)


# What is told


def test_keys_that_come_go_and_are_put_aside_are_told_once_with_their_thumbprints(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        issuer = Issuer("https://issuer.test")
        with IssuerServer(issuer) as server:
            bad = {"kty": "oct", "k": "AAAA", "kid": "x\ny"}
            server.body = json.dumps({"keys": [*issuer.jwks()["keys"], bad]}).encode()
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source, settings=KeySettings(times=KeyTimes(cooldown=0.0))) as (fetcher, changes):
                await until(lambda: changes)
                gone = issuer.kid("ES256")
                assert f"new key of {source}: kid '{gone}', ES256, thumbprint " in caplog.text
                why = "is not used: has private or symmetric members"
                assert f"key number 4 of {source}, kid 'x\\ny', {why}" in caplog.text
                levels = {record.levelname for record in caplog.records}
                assert levels == {"INFO", "ERROR"}  # whoever publishes a secret has lost it
                caplog.clear()
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                assert caplog.text == ""
                issuer.rotate("ES256", keep_old=False)
                server.body = None
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                lines = [record.getMessage().rpartition(", ")[0] for record in caplog.records]
                assert lines == [
                    f"new key of {source}: kid '{issuer.kid('ES256')}', ES256",
                    f"key of {source} is gone: kid '{gone}', ES256",
                ]

    run(test)


def test_an_outage_is_told_when_it_begins_and_ends_and_not_with_each_attempt(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            async with fetching(source, settings=KeySettings(times=KeyTimes(cooldown=0.0))) as (fetcher, changes):
                await until(lambda: changes)
                caplog.clear()
                caplog.set_level(logging.INFO)
                server.status = 500
                for _ in range(3):
                    wait = fetcher.refresh(source)
                    assert wait is not None
                    await wait
                server.status = 200
                wait = fetcher.refresh(source)
                assert wait is not None
                await wait
                assert [record.getMessage() for record in caplog.records] == [
                    f"no keys from {source}, those at hand count for 24.0 h more: status 500",
                    f"keys of {source} come again",
                ]

    run(test)


def test_keys_that_nobody_confirms_for_too_long_are_dropped_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with IssuerServer(ISSUER) as server:
            source = RemoteKeys(server.jwks_uri)
            settings = KeySettings(times=KeyTimes(max_stale=0.5, refresh=0.2))
            async with fetching(source, settings=settings) as (fetcher, changes):
                await until(lambda: changes)
                server.status = 500
                await until(lambda: changes[-1][source].expired)
                assert f"the keys of {source} are too old, its tokens are refused" in caplog.text
                server.status = 200
                await until(lambda: changes.latest(source) == KIDS)
                assert state(fetcher).error == ""

    run(test)


def test_a_fetch_costs_no_descriptor_and_no_task() -> None:
    async def test() -> None:
        async with raw(answer()) as server:
            source = RemoteKeys(server.uri)
            async with fetching(source, settings=KeySettings(times=KeyTimes(cooldown=0.0))) as (fetcher, changes):
                await until(lambda: changes)
                counts = []
                for _ in range(30):
                    wait = fetcher.refresh(source)
                    assert wait is not None
                    await wait
                    await asyncio.sleep(0)
                    counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 (names only)
                assert max(counts[10:]) <= max(counts[:10]) + 2

    run(test)


def test_files_are_read_again_when_somebody_asks_and_issuers_are_not_asked_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "jwks.json"
        path.write_bytes(JWKS)
        with IssuerServer(ISSUER) as server:
            file, remote = FileKeys(str(path)), RemoteKeys(server.jwks_uri)
            async with fetching(file, remote) as (fetcher, changes):
                await until(lambda: changes and changes.latest(file) == changes.latest(remote) == KIDS)
                await until(lambda: all(each.refresh_in is not None for each in fetcher.states()))
                fetcher.reread()
                assert [each.source for each in fetcher.states() if each.refresh_in is None] == [file]
                await until(lambda: all(each.refresh_in is not None for each in fetcher.states()))
                assert server.fetches == 1

    run(test)
