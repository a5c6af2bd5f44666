"""`countersign envoy-config`: prints what the committed configurations say, and the real Envoy runs it."""

import contextlib
import datetime as dt
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from countersign.mesh.certificates import write_certificates
from countersign.mesh.client import Door, send
from countersign.mesh.envoy import Envoy, validate
from countersign.mesh.process import wait_until
from countersign.mesh.relocate import Places
from countersign.mesh.upstream import upstream
from countersign.proxy.lint.codes import EnvoyCode

from tests.cli.serving import Serve

ROOT: Final = Path(__file__).parents[2]
AS_THE_DEMO: Final = (
    *("--name", "httpbin", "--listener", "0.0.0.0:15006", "--application", "upstream:8080", "--namespace", "apps"),
    *("--label", "app=httpbin", "--certificates", "/run/mesh/certs/httpbin"),
)


def _run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "countersign", "envoy-config", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, input=stdin, cwd=ROOT)


def _printed(*words: str) -> Any:
    result = _run(*words)
    assert (result.returncode, result.stderr) == (0, "")
    return yaml.safe_load(result.stdout)


def _filters(document: Any) -> list[dict[str, Any]]:
    chains = document["static_resources"]["listeners"][0]["filter_chains"]
    return [chain["filters"][0]["typed_config"]["http_filters"][0]["typed_config"] for chain in chains]


@pytest.mark.parametrize(("name", "workers"), [("httpbin", "1"), ("workers", "2")])
def test_it_prints_the_committed_sidecar(name: str, workers: str) -> None:
    assert _printed(*AS_THE_DEMO, "--workers", workers) == yaml.safe_load((ROOT / "envoy" / f"{name}.yaml").read_text())


def test_the_parts_are_those_of_the_whole() -> None:
    whole = _printed(*AS_THE_DEMO)
    (filter_,) = _printed(*AS_THE_DEMO, "--part", "filter")["http_filters"]
    (cluster,) = _printed(*AS_THE_DEMO, "--part", "cluster")["clusters"]

    assert filter_["typed_config"] == _filters(whole)[0]
    assert cluster == whole["static_resources"]["clusters"][1]
    assert _printed(*AS_THE_DEMO, "-o", "json") == whole


def test_a_part_says_the_workload_as_the_page_on_workloads_does() -> None:
    words = ("--part", "filter", "--namespace", "infra", "--label", "b=2", "--label", "a=1", "--service-account", "w")
    settings = _printed(*words, "--gateway", "waypoint", "--gateway-class", "istio-waypoint")["typed_per_filter_config"]

    assert settings["envoy.filters.http.ext_authz"]["check_settings"]["context_extensions"] == {
        "workload.namespace": "infra",
        "workload.labels": "a=1,b=2",
        "workload.service_account": "w",
        "workload.gateway": "waypoint",
        "workload.gateway_class": "istio-waypoint",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--authorizer", "authz.example:9191"), "--authorizer-id"),
        (("--authorizer", "authz.example:9191", "--authorizer-id", "x"), "--authorizer-id"),
        (("--authorizer", "authz"), "neither unix:/path nor host:port"),
        (("--namespace", "A_B"), "workload"),
        (("--workers", "0"), "1 to 64"),
        (("-o", "sarif"), "--check"),
        (("--check", "x", "-o", "yaml"), "sarif"),
        (("--part", "filter", "--label", "a=b,c"), "k=v"),
    ],
)
def test_what_cannot_be_printed_is_a_usage_error(words: tuple[str, ...], said: str) -> None:
    result = _run(*words)

    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['envoy_data_plane'] = None\n"
        "from countersign.cli.main import main; sys.exit(main(['envoy-config']))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (result.returncode, result.stdout) == (3, "")
    assert "pip install 'countersign[mesh]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_reads_files_and_standard_input_and_its_exit_code_says_what_was_found(tmp_path: Path) -> None:
    good = _run(*AS_THE_DEMO).stdout
    bad = good.replace("failure_mode_allow: false", "failure_mode_allow: true", 1)
    file = tmp_path / "envoy.yaml"
    file.write_text(bad)

    assert (_run("--check", "-", stdin=good).returncode, _run("--check", str(file)).returncode) == (0, 1)
    assert f"{file}:" in _run("--check", str(file)).stdout
    assert json.loads(_run("--check", str(file), "-o", "json").stdout)[0]["docs"] == "docs/envoy-config.md#ec0001"
    assert "::error file=" in _run("--check", str(file), "-o", "github").stdout
    assert json.loads(_run("--check", str(file), "-o", "sarif").stdout)["runs"][0]["results"]
    assert _run("--check", str(tmp_path / "none.yaml")).returncode == 3
    warned = good.replace("merge_slashes: true", "merge_slashes: false", 1)
    assert _run("--check", "-", stdin=warned).returncode == 0
    assert _run("--check", "-", "--fail-on", "warning", stdin=warned).returncode == 1


@pytest.mark.parametrize("words", [("--remote-ip-hops", "1"), ("--remote-ip-header", "X-Envoy-External-Address")])
def test_check_is_told_where_the_clients_address_is_read(words: tuple[str, ...]) -> None:
    good = _run(*AS_THE_DEMO).stdout
    bad = good.replace("use_remote_address: true", "use_remote_address: false")

    assert (_run("--check", "-", *words, stdin=good).returncode, _run("--check", "-", stdin=bad).returncode) == (0, 0)
    result = _run("--check", "-", *words, stdin=bad)
    assert (result.returncode, "EC0115" in result.stdout) == (1, True)


def test_every_code_has_its_row_on_the_page() -> None:
    page = (ROOT / "docs" / "envoy-config.md").read_text()

    assert re.findall(r'^\| <a id="(ec\d+)"></a>(EC\d+) \|', page, re.MULTILINE) == [
        (code.lower(), str(code)) for code in EnvoyCode
    ]


@pytest.mark.envoy
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--workers", "3"),
        ("--authorizer", "127.0.0.1:9191", "--workers", "2"),
        (
            "--authorizer",
            "authz.example:9191",
            "--authorizer-id",
            "spiffe://cluster.local/ns/countersign/sa/countersign",
        ),
        ("--xfcc-mode", "sanitize_set", "--gateway", "public", "--label", "app=a"),
    ],
    ids=" ".join,
)
def test_the_real_envoy_accepts_what_is_printed(words: tuple[str, ...], tmp_path: Path) -> None:
    write_certificates(tmp_path, dt.datetime.now(dt.UTC))
    file = tmp_path / "envoy.yaml"
    file.write_text(_run("--certificates", str(tmp_path / "httpbin"), "--namespace", "apps", *words).stdout)

    assert validate(file) == ""
    assert _run("--check", str(file), "--fail-on", "warning", *words[: 2 * ("--xfcc-mode" in words)]).returncode == 0


POLICY: Final = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: sleep, namespace: apps}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/apps/sa/sleep]}}]}]}
"""


@pytest.mark.envoy
def test_the_real_envoy_asks_a_real_countersign_as_printed(tmp_path: Path) -> None:
    for name in ("policies", "run", "certs"):
        (tmp_path / name).mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICY)
    write_certificates(tmp_path / "certs", dt.datetime.now(dt.UTC))
    file = tmp_path / "envoy.yaml"
    file.write_text(_run(*AS_THE_DEMO, "--workers", "2").stdout)
    with contextlib.ExitStack() as parts:
        application = parts.enter_context(upstream("127.0.0.1", 0))
        serve = parts.enter_context(Serve(tmp_path / "run", tmp_path / "policies", "--workers", "2"))
        wait_until("being ready", lambda: serve.ready() == "ok" or None, within=20, child=serve.child)
        places = Places(
            addresses={
                "127.0.0.1:9901": ("127.0.0.1", 0),
                "0.0.0.0:15006": ("127.0.0.1", 0),
                "upstream:8080": ("127.0.0.1", application.port),
            },
            paths={"/run/countersign": tmp_path / "run", "/run/mesh/certs": tmp_path / "certs"},
        )
        envoy = parts.enter_context(Envoy(file, places, tmp_path))
        envoy.wait_ready()

        def status(caller: str) -> int:
            door = Door(name="sidecar", port=envoy.port("inbound"), certificates=tmp_path / "certs" / caller)
            return send(door, "GET", "/", (("x-forwarded-client-cert", "URI=spiffe://a/b"),)).status

        assert wait_until("sleep", lambda: status("sleep") == 200 or None, within=10, child=serve.child)
        assert status("batch") == 403
