"""`countersign log verify`, and the log of decisions of a process that serves."""

import gzip
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from countersign.edge.addresses import UnixAddress
from countersign.mesh.process import wait_until
from countersign.wire import auth_pb2 as pb
from countersign.wire.codec import METHOD

from tests.cli.serving import Serve
from tests.edge.probing import ask
from tests.edge.serving import READERS, call, reason, request

READ = request().SerializeToString()
WRITE = request(method="DELETE").SerializeToString()


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "p.yaml").write_text(READERS)
    return directory


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "audit.key", tmp_path / "audit.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)  # noqa: S607
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)  # noqa: S607
    return private, public


def countersign(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "countersign", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def ids(path: Path) -> list[str]:
    return [each["decision_id"] for each in read(path) if "decision_id" in each]


def number(response: pb.CheckResponse) -> str:
    return response.dynamic_metadata.fields["decision_id"].string_value


def ask_many(address: UnixAddress, count: int) -> list[str]:
    """Ask so many times; the IDs that Envoy was told."""
    with grpc.insecure_channel(str(address)) as channel:
        check = channel.unary_unary(METHOD, lambda octets: octets, pb.CheckResponse.FromString)
        return [number(check(WRITE if n % 2 else READ, timeout=10)) for n in range(count)]


def test_each_decision_is_on_standard_output_under_the_id_that_envoy_and_the_client_have(
    tmp_path: Path, policies: Path
) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps", "--decision-log", "stdout") as serve:
        allowed, denied = (call(serve.address, octets) for octets in (READ, WRITE))
        records = "countersign_decision_log_records_total 2.0\n"
        wait_until("being counted", lambda: records in ask(serve.port, "/metrics")[1] or None, within=5)
        assert serve.child.stop() == 0
    lines = read(serve.child.output)

    assert [each["decision_id"] for each in lines] == [number(allowed), number(denied)]
    assert [each["result"]["allowed"] for each in lines] == [True, False]
    assert number(denied) in {line.header.value for line in denied.denied_response.headers}


def test_without_the_flag_there_is_no_log_and_an_allow_has_no_id(tmp_path: Path, policies: Path) -> None:
    with Serve(tmp_path, policies, "--namespace", "apps") as serve:
        assert number(call(serve.address, READ)) == ""
        assert serve.child.stop() == 0
    assert serve.child.output.read_text() == ""


def test_a_chained_log_is_whole_over_rotation_restart_and_sigkill_and_a_change_is_found(
    tmp_path: Path, policies: Path, key: tuple[Path, Path]
) -> None:
    private, public = key
    path, old = tmp_path / "d.jsonl", tmp_path / "d.jsonl.1"
    flags = (
        "--namespace",
        "apps",
        "--decision-log",
        f"file:{path}",
        "--audit-chain",
        "--audit-signing-key",
        str(private),
    )
    seldom = ("--audit-checkpoint-interval", "1h")
    said = []
    with Serve(tmp_path, policies, *flags, *seldom, "--audit-checkpoint-every", "10") as serve:
        said += ask_many(serve.address, 50)
        wait_until("the first file", lambda: len(ids(path)) == 50 or None, within=5)
        path.rename(old)
        said += ask_many(serve.address, 50)
        wait_until("the second file", lambda: (path.exists() and len(ids(path)) == 50) or None, within=5)
        serve.child._signal(signal.SIGKILL)
        serve.child.stop()
    with path.open("ab") as file:
        file.write(b'{"timestamp":"half a li')
    with Serve(tmp_path, policies, *flags, *seldom) as serve:
        said += ask_many(serve.address, 50)
        assert serve.child.stop() == 0
    packed = tmp_path / "d.jsonl.1.gz"
    packed.write_bytes(gzip.compress(old.read_bytes()))
    whole = countersign("log", "verify", path, packed, "--key", public, "--ended")

    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout.endswith("ok: 150 records, 13 events, 0 findings\n"), whole.stdout
    assert "half a line, from a process that was killed" in whole.stdout
    assert ids(old) == said[:50]
    with path.open("rb") as file:
        lines = file.readlines()
    path.write_bytes(b"".join([*lines[:5], lines[5].replace(b"sleep", b"sleeq"), *lines[6:9], *lines[10:]]))
    changed = countersign("log", "verify", old, path, "--key", public, "-o", "json")
    assert changed.returncode == 1
    assert [(each["file"], each["line"], each["kind"]) for each in json.loads(changed.stdout)["findings"]] == [
        (str(path), 6, "changed"),
        (str(path), 10, "missing"),
    ]


def test_each_worker_has_a_file_of_its_own(tmp_path: Path, policies: Path) -> None:
    flags = ("--namespace", "apps", "--workers", "2", "--decision-log", f"file:{tmp_path / 'd.jsonl'}", "--audit-chain")
    with Serve(tmp_path, policies, *flags) as serve:
        wait_until("serving", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        said = [ask_many(UnixAddress(str(tmp_path / f"authz-{n}.sock")), 5) for n in (0, 1)]
        assert serve.child.stop(20) == 0

    assert [ids(tmp_path / f"d-{n}.jsonl") for n in (0, 1)] == said
    verified = countersign("log", "verify", tmp_path / "d-0.jsonl", tmp_path / "d-1.jsonl", "--ended")
    assert verified.stdout.endswith("ok: 10 records, 4 events, 0 findings\n"), verified.stdout


def test_workers_share_standard_output_line_by_line(tmp_path: Path, policies: Path) -> None:
    flags = ("--namespace", "apps", "--workers", "2", "--decision-log", "stdout", "--audit-chain")
    with Serve(tmp_path, policies, *flags) as serve:
        wait_until("serving", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        said = [ask_many(UnixAddress(str(tmp_path / f"authz-{n}.sock")), 50) for n in (0, 1)]
        assert serve.child.stop(20) == 0

    assert Counter(ids(serve.child.output)) == Counter([*said[0], *said[1]])
    verified = countersign("log", "verify", serve.child.output, "--ended")
    assert verified.stdout.endswith("ok: 100 records, 4 events, 0 findings\n"), verified.stdout


def test_masks_and_samples_of_the_configuration_file_hold(tmp_path: Path, policies: Path) -> None:
    config = tmp_path / "countersign.yaml"
    log = f"file:{tmp_path / 'd.jsonl'}"
    config.write_text(f"audit:\n  log: {log}\n  mask: [/input/source, /input/request/path]\n  sampleAllows: 0\n")
    with Serve(tmp_path, policies, "--namespace", "apps", "--config", str(config)) as serve:
        assert reason(call(serve.address, READ)) == "allow-rule-matched"
        denied = call(serve.address, WRITE)
        assert serve.child.stop() == 0
    (line,) = read(tmp_path / "d.jsonl")

    assert line["decision_id"] == number(denied)
    assert line["erased"] == ["/input/source", "/input/request/path"]
    assert ("source" in line["input"], "path" in line["input"]["request"]) == (False, False)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--decision-log", "syslog"), 2, "`syslog` is none of stdout, file:PATH or https://HOST/PATH"),
        (("--decision-log", "https://c.example/logs"), 2, "say by --audit-spool DIR where records wait"),
        (("--decision-log", "http://c.example/", "--audit-spool", "s"), 2, "cross the network in plaintext"),
        (
            ("--decision-log", "https://c.example/", "--audit-spool", "s", "--audit-chain"),
            2,
            "--audit-chain: for stdout",
        ),
        (("--decision-log", "stdout", "--audit-spool", "s"), 2, "--audit-spool s: only for --decision-log https://"),
        (
            ("--decision-log", "stdout", "--audit-signing-key", "k"),
            2,
            "--audit-signing-key k: signs the chain; say --audit-chain too",
        ),
        (("--audit-chain",), 2, "there is no log; say --decision-log"),
        (("--audit-mode", "block"), 2, "there is no log; say --decision-log"),
        (("--audit-mask", "/input/token/subject"), 2, "did you mean `/input/token/sub`?"),
        (("--audit-sample-allows", "1.5"), 2, "`1.5` is no share, 0 to 1"),
        (("--audit-queue", "0"), 2, "`0` is no number from 1 to 1000000"),
        (("--decision-log", "file:/nowhere/d.jsonl"), 3, "/nowhere/d.jsonl: No such file or directory"),
        (
            ("--decision-log", "stdout", "--audit-chain", "--audit-signing-key", "/dev/null"),
            3,
            "/dev/null: no private key",
        ),
    ],
)
def test_settings_of_the_log_that_cannot_work_are_refused(
    policies: Path, tmp_path: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    refused = countersign("serve", "--policies", policies, "--listen", f"unix:{tmp_path / 'a.sock'}", *flags)

    assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_cannot_be_verified_is_an_error_of_its_own(tmp_path: Path, key: tuple[Path, Path]) -> None:
    log = tmp_path / "d.jsonl"
    log.write_text('{"decision_id":"x"}\n')
    foreign = countersign("log", "verify", log)
    assert (foreign.returncode, f"{log}:1: foreign: no part of a chain\n" in foreign.stdout) == (1, True)
    private, _ = key
    for words, code, said in (
        ((tmp_path / "gone",), 3, "No such file"),
        ((log, "--key", private), 2, "no public key in PEM"),
        ((log, "--key", tmp_path / "gone"), 3, "No such file"),
    ):
        refused = countersign("log", "verify", *words)
        assert (refused.returncode, said in refused.stderr, "Traceback" in refused.stderr) == (code, True, False)
    (tmp_path / "d.gz").write_bytes(b"no gzip")
    broken = countersign("log", "verify", tmp_path / "d.gz")
    assert (broken.returncode, "Traceback" in broken.stderr) == (1, False)
