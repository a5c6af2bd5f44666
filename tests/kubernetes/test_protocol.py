"""What an API server does seldom, or only when it is ill, asked of the small one through a real `countersign serve`."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from countersign.edge.kubernetes.address import parse_cluster
from countersign.edge.kubernetes.api import ApiError, Collection, pages
from countersign.edge.kubernetes.connect import connect
from countersign.mesh.process import wait_until

from tests.cli.serving import Serve
from tests.cli.test_readiness import told
from tests.cli.test_serve import NOBODY, becomes, decide
from tests.edge.serving import READERS
from tests.kubernetes.conftest import Cluster
from tests.kubernetes.small import TOKEN, Failure, SmallApiServer
from tests.kubernetes.test_cluster import metric, policy, serving, version_of, watched


@pytest.fixture
def api(small: Cluster) -> SmallApiServer:
    assert isinstance(small.api, SmallApiServer)
    return small.api


@pytest.fixture
def serve(tmp_path: Path, small: Cluster) -> Iterator[Serve]:
    """With one policy, and ready."""
    small.api.apply(policy(READERS))
    with serving(tmp_path, small) as found:
        wait_until("being ready", lambda: found.ready() == "ok" or None, within=20, child=found.child)
        wait_until("three watches", lambda: len(small.api.asked()) >= 6 or None, within=20, child=found.child)
        yield found


def asked_after(api: SmallApiServer, before: int, count: int) -> list[str]:
    wait_until(f"{count} requests", lambda: len(api.asked()) >= before + count or None, within=20)
    return api.asked()[before:]


def test_a_bookmark_is_where_a_later_watch_goes_on(serve: Serve, small: Cluster, api: SmallApiServer) -> None:
    assert all("allowWatchBookmarks=true" in each for each in api.asked() if "watch=true" in each)
    contact = metric(serve, "cluster_contact_timestamp_seconds")
    api.say()
    wait_until(
        "being heard",
        lambda: metric(serve, "cluster_contact_timestamp_seconds") > contact or None,
        within=10,
        child=serve.child,
    )
    before = len(api.asked())
    small.wire.cut()

    assert {version_of(each) for each in asked_after(api, before, 3)} == {api.version}


def test_an_event_that_makes_no_sense_is_told_and_all_is_listed_again(serve: Serve, api: SmallApiServer) -> None:
    before = len(api.asked())
    api.say_nonsense()
    serve.wait_for_log("an event that is none of the API's")
    lists = [each for each in asked_after(api, before, 6) if "watch=true" not in each]
    watched(serve, "[+]cluster ok")
    assert len(lists) == 3
    assert decide(serve) == "allow-rule-matched"


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (Failure(500), "status 500: the test says so"),
        (Failure(503, b"not JSON"), "status 503: Service Unavailable"),
        (Failure(302, b""), "status 302: Found"),
        (Failure(200, b"not JSON"), "an answer that is no JSON"),
        (Failure(200, b"[]"), "an answer that is no JSON object"),
        (Failure(200, b"[" * 200_000), "an answer that is no JSON"),
        (Failure(200, b'{"items": [1], "metadata": {}}'), "an answer that is no list"),
        (Failure(200, b'{"items": [], "metadata": {}}'), "an answer without `metadata.resourceVersion`"),
        (Failure(200, b"\n" * (64 * 1024 * 1024 + 1)), f"an answer of more than {64 * 1024 * 1024} bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_list_is_refused_with_the_reason(
    small: Cluster, api: SmallApiServer, failure: Failure, says: str
) -> None:
    address = parse_cluster(small.url)
    path = Collection("AuthorizationPolicy").path("v1")

    async def read() -> list[int]:
        async with connect(address) as client:
            return [len(page.objects) async for page in pages(client, path)]

    api.failures.append(failure)
    with pytest.raises(ApiError) as error:
        asyncio.run(read())
    assert str(error.value) == says
    assert asyncio.run(read()) == [0]


def test_a_server_in_trouble_is_told_and_asked_again(tmp_path: Path, small: Cluster, api: SmallApiServer) -> None:
    api.apply(policy(READERS))
    api.failures += [Failure(500)] * 6
    with serving(tmp_path, small) as serve:
        serve.wait_for_log("status 500: the test says so")
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=30, child=serve.child)
        assert decide(serve) == "allow-rule-matched"


def test_a_server_that_asks_to_be_left_alone_is(tmp_path: Path, small: Cluster, api: SmallApiServer) -> None:
    api.apply(policy(READERS))
    api.failures += [Failure(429, None, 2)] * 3
    with serving(tmp_path, small) as serve:
        serve.wait_for_log("status 429")
        assert decide(serve) == "no-policies-loaded"
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        assert api.times[3] - api.times[0] >= 2


def test_a_list_comes_in_pages_and_one_that_expires_is_begun_again(
    tmp_path: Path, small: Cluster, api: SmallApiServer
) -> None:
    names = [f"readers-{number:03}" for number in range(600)]
    api.apply(*(policy(READERS.replace("name: readers", f"name: {name}")) for name in names))
    api.expiring = 1
    with serving(tmp_path, small) as serve:
        serve.wait_for_log("policies loaded: 600 resources")
        lists = [each for each in api.asked() if "authorizationpolicies?limit" in each]
        assert ["continue=" in each for each in lists] == [False, True, False, True, True]


def test_many_changes_are_put_in_force_at_once(serve: Serve, api: SmallApiServer) -> None:
    for number in range(60):
        api.apply(policy(READERS.replace("name: readers", f"name: readers-{number}")))
        assert metric(serve, "cluster_watched") == 1  # takes some milliseconds
    serve.wait_for_log("policies loaded: 61 resources")
    assert metric(serve, "policy_generation") <= 5


def test_what_others_write_beside_a_policy_is_no_change(serve: Serve, api: SmallApiServer) -> None:
    contact = metric(serve, "cluster_contact_timestamp_seconds")
    api.apply({**policy(READERS), "status": {"conditions": [{"type": "Accepted"}]}})
    api.say()
    wait_until(
        "being heard",
        lambda: metric(serve, "cluster_contact_timestamp_seconds") > contact or None,
        within=10,
        child=serve.child,
    )
    os.kill(serve.child.pid, signal.SIGHUP)
    serve.wait_for_log("policies are unchanged: generation 1")


def test_a_token_that_is_replaced_is_read_again(serve: Serve, small: Cluster, api: SmallApiServer) -> None:
    assert set(api.used_tokens) == {TOKEN}
    small.token.write_text("second-token\n")
    api.tokens = {"second-token"}
    api.used_tokens.clear()
    small.wire.cut()
    api.apply(policy(NOBODY))
    assert becomes(serve, "no-allow-rule-matched")
    assert set(api.used_tokens) == {"second-token"}
    assert "-token" not in serve.log


def test_a_token_that_is_refused_is_told_and_the_next_one_taken(
    serve: Serve, small: Cluster, api: SmallApiServer
) -> None:
    api.tokens = {"second-token"}
    small.wire.cut()
    serve.wait_for_log("status 401: Unauthorized; the API server does not take the credentials")
    assert decide(serve) == "allow-rule-matched"
    before = len(api.asked())
    small.token.write_text("second-token")
    watched(serve, "[+]cluster ok")
    assert all("watch=true" in each for each in api.asked()[before:])


def test_the_older_version_is_asked_for_where_the_newer_is_not_served(
    tmp_path: Path, small: Cluster, api: SmallApiServer
) -> None:
    api.served = ["v1beta1"]
    api.apply(policy(READERS))
    with serving(tmp_path, small) as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        assert decide(serve) == "allow-rule-matched"
        api.apply(policy(NOBODY))
        assert becomes(serve, "no-allow-rule-matched")


def test_without_the_kinds_it_says_what_is_missing(tmp_path: Path, small: Cluster, api: SmallApiServer) -> None:
    api.served = []
    with serving(tmp_path, small) as serve:
        serve.wait_for_log("AuthorizationPolicy: neither v1 nor v1beta1 of it is served: are Istio's CRDs installed?")
        assert told(serve)[0] == "503"


def test_who_may_list_but_not_watch_is_told(tmp_path: Path, small: Cluster, api: SmallApiServer) -> None:
    api.apply(policy(READERS))
    api.forbidden = {"watch"}
    with serving(tmp_path, small) as serve:
        serve.wait_for_log("cannot watch resource")
        assert becomes(serve, "allow-rule-matched")
        watched(serve, "[!]cluster: ")


def test_files_and_a_cluster_are_one_set(tmp_path: Path, small: Cluster, api: SmallApiServer) -> None:
    files = tmp_path / "policies"
    files.mkdir()
    (files / "p.yaml").write_text(READERS)
    api.apply(policy(NOBODY))
    with serving(tmp_path, small, "--policies", str(files)) as serve:
        serve.wait_for_log("apps/readers` is here twice")
        assert decide(serve) == "no-policies-loaded"
        (files / "p.yaml").write_text(READERS.replace("name: readers", "name: more"))
        assert becomes(serve, "allow-rule-matched")


def test_workers_are_fed_from_it(tmp_path: Path, small: Cluster, api: SmallApiServer) -> None:
    api.apply(policy(READERS))
    with serving(tmp_path, small, "--workers", "2") as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=30, child=serve.child)
        assert len(api.asked()) == 6  # the supervisor's, and no worker's
        assert metric(serve, "cluster_watched") == 1


def test_it_stops_at_once_while_watches_are_open(serve: Serve) -> None:
    assert serve.child.stop() == 0


def countersign(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "import sys; sys.modules['lightkube'] = None; from countersign.__main__ import main; sys.exit(main())",
    ]
    words = [*command, "serve", *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_without_the_extra_it_says_what_to_install() -> None:
    result = countersign("--policies", "kubernetes://")

    assert result.returncode == 2
    assert result.stderr == (
        "countersign serve: --policies kubernetes://: the client library is not installed: "
        "pip install 'countersign[kubernetes]'\n"
    )


def test_the_kubeconfig_of_the_environment_is_used(
    tmp_path: Path, small: Cluster, api: SmallApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.apply(policy(READERS))
    monkeypatch.setenv("KUBECONFIG", str(small.kubeconfig))
    with serving(tmp_path, small, url="kubernetes://") as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
