"""`countersign check`: the policies of a workload, the same from files and from a server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final

import pytest
from countersign.cli.main import main
from countersign.edge.policy_files import parse_files, read_files

from tests.admin.asking import api
from tests.edge.serving import snapshot

ROOT: Final = Path(__file__).parents[2]
POLICIES: Final = ROOT / "envoy" / "policies"
RULES: Final = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ports, namespace: apps}
spec: {selector: {matchLabels: {app: shop}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: v1-only, namespace: apps}
spec: {selector: {matchLabels: {version: v1}}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: apps, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{}]}
"""


def check(*words: str) -> int:
    try:
        return main(["check", *words])
    except SystemExit as ended:  # argparse's way
        return int(ended.code or 0)


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "admin.md").read_text()
    command, _, rest = page.partition("    $ countersign check ")[2].partition("\n")
    shown = rest.partition("\n\nIt exits with")[0]
    monkeypatch.chdir(ROOT)

    assert check(*command.split()) == 0

    assert capsys.readouterr().out.rstrip() == "\n".join(line.removeprefix("    ") for line in shown.splitlines())


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_server_says_what_its_files_say(capsys: pytest.CaptureFixture[str], output: str) -> None:
    loaded, _ = parse_files(read_files([POLICIES]), "")
    current = snapshot()
    assert current.policies is not None
    current.policies.resources = loaded.resources
    words = ("--workload", "apps/httpbin", "--label", "version=v1", "--format", output)

    assert check(*words, "--policies", str(POLICIES)) == 0
    of_files = capsys.readouterr().out
    with api(lambda: current) as admin:
        assert check(*words, "--admin", f"127.0.0.1:{admin.port}") == 0

    assert capsys.readouterr().out == of_files
    assert "users.apps" in of_files


def test_ports_and_dry_runs_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(RULES)
    words = ("--policies", str(tmp_path), "--workload", "apps/shop")

    assert check(*words, "--label", "version=v1") == 0
    assert capsys.readouterr().out.splitlines() == [
        "ACTION           AuthorizationPolicy   RULES",
        "ALLOW            v1-only.apps          1",
        "DENY (dry run)   tried.apps            1",
        "",
        "PORT   PeerAuthentication   MODE",
        "*      ports.apps           STRICT",
        "8080   ports.apps           PERMISSIVE",
    ]


@pytest.mark.parametrize("workload", ["apps/shop", "elsewhere"])
def test_that_nothing_is_in_force_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workload: str
) -> None:
    (tmp_path / "p.yaml").write_text(RULES)

    assert check("--policies", str(tmp_path), "--workload", workload) == 1

    assert "No AuthorizationPolicy is in force here" in capsys.readouterr().out


def test_json_has_rules_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--policies", str(POLICIES), "--workload", "apps/httpbin", "-o", "json") == 0

    found = json.loads(capsys.readouterr().out)
    (users,) = [each for each in found["authorization_policies"] if each["policy"] == "users.apps"]
    assert users["rules"] == ["ns[apps]-policy[users]-rule[0]", "ns[apps]-policy[users]-rule[1]"]
    assert users["source"].endswith("allow-users.yaml:2")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--workload", "/x", "--policies", str(POLICIES)], 2, "`/x`: wants NS/APP, such as apps/httpbin"),
        (["--workload", "a/b/c", "--policies", str(POLICIES)], 2, "`a/b/c`: wants NS/APP"),
        (["--workload", "a/b", "--label", "x", "--policies", str(POLICIES)], 2, "`x`: wants K=V"),
        (["--workload", "a/b", "--label", "app=c", "--policies", str(POLICIES)], 2, "its labels say something else"),
        (["--workload", "a", "--label", "x=1", "--label", "x=1", "--policies", str(POLICIES)], 2, "or a label twice"),
        (["--workload", "a/b", "--policies", "/nowhere"], 3, "/nowhere:1:1: error[CS0008]: no such file"),
        (["--workload", "a/b", "--admin", "unix:/x"], 2, "`unix:/x` is no host:port"),
        (["--workload", "a/b", "--admin", "x:1", "--policies", "y"], 2, "not allowed with argument"),
        (["--policies", str(POLICIES)], 2, "--workload"),
        (["--workload", "a/b", "--admin", "127.0.0.1:1"], 3, "http://127.0.0.1:1: Connection refused; is"),
    ],
)
def test_what_cannot_be_answered_is_said(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert check(*words) == code
    assert message in capsys.readouterr().err


def test_broken_policies_are_told_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(RULES.replace("selector", "selectr"))

    assert check("--policies", str(tmp_path), "--workload", "apps/shop") == 2

    assert "p.yaml:4:8" in capsys.readouterr().err


@contextmanager
def _somebody_else(status: int, answer: bytes) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "answer", "code", "message"),
    [
        (200, b"hello", 3, "no admin API of countersign: JSONDecodeError"),
        (200, b"[]", 3, "not that of the admin API"),
        (200, b"[" * 100_000, 3, "no admin API of countersign: RecursionError"),
        (200, b'{"namespace": "a"}', 3, "not that of the admin API"),
        (404, b'{"error": "no\\u001b[31m"}', 3, "status 404: no\\x1b[31m"),
        (400, b'{"error": "no\\u001b[31m"}', 2, "no\\x1b[31m"),
        (500, b"[]", 3, "status 500"),
    ],
)
def test_an_answer_of_somebody_else_is_no_answer(
    capsys: pytest.CaptureFixture[str], status: int, answer: bytes, code: int, message: str
) -> None:
    with _somebody_else(status, answer) as port:
        assert check("--workload", "a/b", "--admin", f"127.0.0.1:{port}") == code
    assert message in capsys.readouterr().err
