"""`countersign serve --workers`: real processes, one of which is killed now and then."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from countersign.edge.addresses import UnixAddress, of_worker
from countersign.mesh.issuer import Issuer, IssuerServer
from countersign.mesh.process import wait_until
from countersign.workers.keeper import HUNG
from countersign.workers.messages import BEAT

from tests.cli.serving import Serve, consecutive_ports, free_port
from tests.cli.test_serve import BROKEN, NOBODY, WITH_KEYS, countersign
from tests.edge.serving import READERS, call, health, reason, request

URL = "https://issuer.test"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "p.yaml").write_text(READERS)
    return directory


@contextmanager
def two(directory: Path, policies: Path, *flags: str) -> Iterator[Serve]:
    """Two workers that serve."""
    with Serve(directory, policies, "--namespace", "apps", "--workers", "2", *flags) as serve:
        for number in range(2):
            wait_until(f"worker {number}", partial(_served, serve, number), within=20, child=serve.child)
        yield serve


def _served(serve: Serve, number: int) -> bool | None:
    return bool(pids(serve, number)) or None


def at(serve: Serve, number: int) -> UnixAddress:
    address = of_worker(serve.address, number)
    assert isinstance(address, UnixAddress)
    return address


def pids(serve: Serve, number: int) -> list[int]:
    """The processes that have been this worker."""
    return [int(pid) for pid in re.findall(rf"worker {number} \(.*\) serves, process (\d+)\n", serve.log)]


def kill(serve: Serve, number: int) -> None:
    """Kill a worker, and return when another has taken its place."""
    known = pids(serve, number)
    os.kill(known[-1], signal.SIGKILL)
    wait_until("another", lambda: pids(serve, number)[len(known) :] or None, within=20, child=serve.child)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def decide(serve: Serve, number: int, token: str = "") -> str:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return reason(call(at(serve, number), request(headers=headers).SerializeToString()))


def becomes(serve: Serve, number: int, expected: str) -> bool:
    return wait_until(expected, lambda: decide(serve, number) == expected or None, within=10, child=serve.child)


def token(issuer: Issuer) -> str:
    return issuer.sign({"sub": "alice", "exp": int(time.time()) + 600}, algorithm="ES256")


def _serving(address: UnixAddress) -> bool | None:
    return health(address) == "SERVING" or None


def test_each_worker_decides_on_its_own_address(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        for number in range(2):
            assert decide(serve, number) == "allow-rule-matched"
            assert health(at(serve, number)) == "SERVING"
        assert serve.ready() == "ok"
        assert sorted(path.name for path in tmp_path.glob("*.sock")) == ["authz-0.sock", "authz-1.sock"]


def test_a_policy_that_changes_is_in_force_in_every_worker(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        (policies / "p.yaml").write_text(NOBODY)
        assert all(becomes(serve, number, "no-allow-rule-matched") for number in range(2))
        (policies / "p.yaml").write_text(BROKEN)
        serve.wait_for_log("the last good set stays in force")
        assert serve.log.count("unknown field `principal`") == 1  # the files are read once for all
        assert [decide(serve, number) for number in range(2)] == ["no-allow-rule-matched"] * 2


def test_a_worker_that_is_killed_is_replaced_on_its_address(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        (policies / "p.yaml").write_text(NOBODY)
        assert becomes(serve, 0, "no-allow-rule-matched")
        kill(serve, 0)
        assert [decide(serve, number) for number in range(2)] == ["no-allow-rule-matched"] * 2
        assert health(at(serve, 0)) == "SERVING"
        assert serve.ready() == "ok"
        (policies / "p.yaml").write_text(READERS)
        assert all(becomes(serve, number, "allow-rule-matched") for number in range(2))
        assert "another begins in 0.1 s: exit code -9" in serve.log


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        (hung,) = pids(serve, 0)
        os.kill(hung, signal.SIGSTOP)
        wait_until("another", lambda: pids(serve, 0)[1:] or None, within=30, child=serve.child)
        assert not lives(hung)
        assert "it has given no sign of life for 5 s, and was killed" in serve.log
        assert [decide(serve, number) for number in range(2)] == ["allow-rule-matched"] * 2
        assert len(pids(serve, 1)) == 1  # which does not hang
        assert serve.child.stop() == 0


def test_a_supervisor_that_was_held_up_takes_no_worker_for_hung(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        os.kill(serve.child.pid, signal.SIGSTOP)
        time.sleep(HUNG + 2 * BEAT)  # nothing else tells that so much time has passed
        os.kill(serve.child.pid, signal.SIGCONT)
        (policies / "p.yaml").write_text(NOBODY)
        assert all(becomes(serve, number, "no-allow-rule-matched") for number in range(2))
        assert [len(pids(serve, number)) for number in range(2)] == [1, 1]
        assert "has ended" not in serve.log


def test_a_worker_that_does_not_last_is_replaced_ever_later(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        for _ in range(3):
            kill(serve, 1)
        assert re.findall(r"another begins in (\S+) s", serve.log) == ["0.1", "0.2", "0.4"]


def test_all_workers_together_ask_an_issuer_once(tmp_path: Path, policies: Path) -> None:
    issuer = Issuer(URL)
    with IssuerServer(issuer) as server:
        (policies / "p.yaml").write_text(WITH_KEYS % server.jwks_uri)
        with two(tmp_path, policies) as serve:
            wait_until("being ready", lambda: serve.ready() == "ok" or None, within=10)
            assert [decide(serve, number, token(issuer)) for number in range(2)] == ["allow-rule-matched"] * 2
            assert server.fetches == 1
            kill(serve, 0)
            assert decide(serve, 0, token(issuer)) == "allow-rule-matched"
            assert server.fetches == 1  # the keys were at hand

            issuer.rotate("ES256", keep_old=False)  # one worker misses the key, all of them get it
            assert decide(serve, 1, token(issuer)) == "allow-rule-matched"
            assert decide(serve, 0, token(issuer)) == "allow-rule-matched"
            assert server.fetches == 2

            issuer.rotate("ES256", keep_old=False)  # within the cooldown, whoever asks
            assert [decide(serve, number, token(issuer)) for number in range(2)] == ["token-unknown-key"] * 2
            assert server.fetches == 2


def test_no_worker_is_ready_before_the_keys_have_been_asked_for(tmp_path: Path, policies: Path) -> None:
    with IssuerServer(Issuer(URL)) as server:
        server.delay = 6.0
        (policies / "p.yaml").write_text((WITH_KEYS % server.jwks_uri).replace('"}]', '", timeout: 30s}]'))
        with two(tmp_path, policies) as serve:
            assert serve.ready() == f"fetching keys from {server.jwks_uri}"
            assert [health(at(serve, number)) for number in range(2)] == ["NOT_SERVING"] * 2
            wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20)
            for number in range(2):
                assert wait_until("serving", partial(_serving, at(serve, number)), within=10)


def test_without_any_policy_no_worker_allows_anything(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    with two(tmp_path, policies) as serve:
        assert [decide(serve, number) for number in range(2)] == ["no-policies-loaded"] * 2
        assert [health(at(serve, number)) for number in range(2)] == ["NOT_SERVING"] * 2
        assert serve.ready() == "no policy has been loaded"
        (policies / "p.yaml").write_text(READERS)
        assert all(becomes(serve, number, "allow-rule-matched") for number in range(2))


def test_sigterm_ends_every_worker_and_leaves_nothing(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        workers = [*pids(serve, 0), *pids(serve, 1)]
        assert [lives(pid) for pid in workers] == [True, True]
        assert serve.child.stop() == 0
        assert [lives(pid) for pid in workers] == [False, False]
        assert not list(tmp_path.glob("*.sock"))
        assert "has ended" not in serve.log


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path, policies: Path) -> None:
    with two(tmp_path, policies) as serve:
        workers = [*pids(serve, 0), *pids(serve, 1)]
        os.kill(serve.child.pid, signal.SIGKILL)
        wait_until("ending", lambda: not any(map(lives, workers)) or None, within=15)
        assert serve.log.count("the supervisor has gone: stopping") == 2
    assert not list(tmp_path.glob("*.sock"))


def test_ports_count_up(tmp_path: Path, policies: Path) -> None:
    port = consecutive_ports(2)
    with two(tmp_path, policies, "--listen", f"127.0.0.1:{port}") as serve:
        kill(serve, 1)  # and are taken again
        assert f"worker 1: 127.0.0.1:{port + 1} is served by native: loopback" in serve.log
        assert decide(serve, 1) == "allow-rule-matched"


def test_an_address_that_is_taken_is_named_at_the_start(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--listen", f"unix:{tmp_path}/b-1.sock"):
        flags = ("--workers", "2", "--listen", f"unix:{tmp_path}/b.sock", "--probes", f"127.0.0.1:{free_port()}")
        result = countersign("serve", "--policies", str(policies), *flags)

    assert result.returncode == 3
    assert f"another process serves {tmp_path}/b-1.sock" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "b-0.sock").exists()


def test_a_transport_that_cannot_serve_is_a_usage_error_of_all(policies: Path) -> None:
    flags = ("--workers", "2", "--transport", "native", "--listen", f"0.0.0.0:{free_port()}", "--insecure-listen")
    result = countersign("serve", "--policies", str(policies), "--probes", f"127.0.0.1:{free_port()}", *flags)

    assert result.returncode == 2
    assert "--transport native cannot serve 0.0.0.0:" in result.stderr
    assert "Traceback" not in result.stderr


def test_broken_policies_at_the_start_are_named_once(tmp_path: Path, policies: Path) -> None:
    (policies / "p.yaml").write_text(BROKEN)
    flags = ("--workers", "2", "--listen", f"unix:{tmp_path}/b.sock", "--probes", f"127.0.0.1:{free_port()}")
    result = countersign("serve", "--policies", str(policies), *flags)

    assert result.returncode == 1
    assert result.stderr.count("error[CS0003]") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "argument --workers: `0` is no number of processes, 1 to 64"),
        (["--workers", "65"], "argument --workers: `65` is no number of processes"),
        (["--workers", "2", "--listen", "127.0.0.1:0"], "`127.0.0.1:0`: port 0 is any free one, and has no next one"),
        (["--workers", "2", "--listen", "127.0.0.1:65535"], "`127.0.0.1:65535`: there is no port 65536"),
        (
            ["--workers", "2", "--listen", "127.0.0.1:8281", "--probes", "127.0.0.1:8282"],
            "worker 1 would listen on 127.0.0.1:8282, which is --probes's",
        ),
        (
            ["--workers", "2", "--listen", "127.0.0.1:9191", "--listen", "127.0.0.1:9192"],
            "worker 1 would listen on 127.0.0.1:9192, which is worker 0's",
        ),
        (["--workers", "11", "--listen", f"unix:/{'a' * 104}"], "a socket path may have 107 bytes at most"),
    ],
)
def test_addresses_that_cannot_be_shared_out_are_refused(policies: Path, flags: list[str], message: str) -> None:
    result = countersign("serve", "--policies", str(policies), *flags)

    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
