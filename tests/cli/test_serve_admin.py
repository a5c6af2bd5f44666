"""The admin API of `countersign serve`: of one process or several, from any of them, and none where none is wanted."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from countersign.edge.addresses import UnixAddress
from countersign.mesh.process import wait_until
from countersign.wire.codec import NUMBER_HEADER

from tests.admin.asking import Answer, ask
from tests.cli.serving import Serve, free_port
from tests.edge.serving import READERS, call, request

PAGE = Path(__file__).parents[2] / "docs" / "admin.md"
DENIED = request(method="DELETE").SerializeToString()


def number(address: UnixAddress) -> str:
    """The ID that a denied client gets."""
    headers = call(address, DENIED).denied_response.headers
    (found,) = [line.header.value for line in headers if line.header.key == NUMBER_HEADER]
    return str(found)


def _decision(port: int, of: str) -> Answer | None:
    answer = ask(port, f"/decisions/{of}")
    return answer if answer.status == 200 else None


@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_was_denied_by_any_process_can_be_told_why(tmp_path: Path, workers: int) -> None:
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    port = free_port()
    flags = ("--namespace", "apps", "--admin", f"127.0.0.1:{port}", "--workers", str(workers))
    with Serve(tmp_path, policies, *flags) as serve:
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        names = ["authz-0.sock", "authz-1.sock"] if workers > 1 else ["authz.sock"]
        for name in names:
            denied = number(UnixAddress(str(tmp_path / name)))
            found = wait_until("hearing of it", partial(_decision, port, denied), within=5, child=serve.child)
            assert found.json["explanation"]["nearest"]["id"] == "ns[apps]-policy[readers]-rule[0]"
        assert len(ask(port, "/decisions").json["denials"]) == workers
        workloads = wait_until("workloads", lambda: _policies(port)["workloads"] or None, within=5)
        assert workloads == [{"namespace": "apps", "labels": {}, "gateway": ""}]
        assert _policies(port)["generation"] == 1

        policies.write_text(READERS.replace("readers", "others"))
        os.kill(serve.child.pid, signal.SIGHUP)
        wait_until("reloading", lambda: _policies(port)["generation"] == 2 or None, within=10, child=serve.child)
        assert [each["policy"] for each in _policies(port)["policies"]] == ["others.apps"]
        assert f"admin: '127.0.0.1:{port}' # --admin" in ask(port, "/config").text


def _policies(port: int) -> Any:
    return ask(port, "/policies").json


def test_off_is_off(tmp_path: Path) -> None:
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    with Serve(tmp_path, policies, "--admin", "off") as serve:
        serve.wait_for_log("listening")
        assert "admin API" not in serve.log


def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path) -> None:
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        serve = Serve(tmp_path, policies, "--admin", address)
        with pytest.raises(Exception, match="starting"), serve:
            pass
        assert f"countersign serve: cannot listen on {address} for the admin API: " in serve.log


def test_each_path_of_the_admin_page_answers(tmp_path: Path) -> None:
    page = PAGE.read_text()
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    port = free_port()
    with Serve(tmp_path, policies, "--namespace", "apps", "--admin", f"127.0.0.1:{port}") as serve:
        serve.wait_for_log("listening")
        denied = number(serve.address)
        paths = re.findall(r"^\| `(/\S+)` \|", page, re.MULTILINE)
        assert len(paths) == 7
        for path in paths:
            assert (path, ask(port, path.replace("ID", denied)).status) == (path, 200)


def test_each_command_of_the_admin_page_answers_as_it_is_printed(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here, and the page's commands are curl's: apt-get install curl")
    policies = tmp_path / "p.yaml"
    policies.write_text(READERS)
    port = free_port()
    with Serve(tmp_path, policies, "--namespace", "apps", "--admin", f"127.0.0.1:{port}") as serve:
        serve.wait_for_log("listening")
        answers = []
        for command in re.findall(r"^    (curl .*)$", PAGE.read_text(), re.MULTILINE):
            shell = ["/bin/sh", "-c", command.replace(":8181/", f":{port}/")]
            answers.append(json.loads(subprocess.check_output(shell, text=True, timeout=10)))

    denials, applied, explained = answers
    assert denials == {"denials": []}
    assert [each["policy"] for each in applied["authorization_policies"]] == ["readers.apps"]
    assert explained["decision"] == "DENY"
