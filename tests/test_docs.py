"""What the public documents say is so: each command runs, each snippet is the real one, each row has its test."""

import argparse
import datetime as dt
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.cli import serve
from countersign.cli.config.file import parse_config
from countersign.cli.config.layers import layered
from countersign.cli.config.record_flags import record_of
from countersign.core.binding import BindingError, PeerPart, hold_binding
from countersign.core.decision import Reason
from countersign.core.spiffe import SpiffeId
from countersign.edge.kubernetes.address import Cluster
from countersign.edge.kubernetes.api import GROUP, PLURALS
from countersign.edge.kubernetes.objects import MAX_CHARACTERS, MAX_OBJECTS
from countersign.edge.tls.settings import TlsFiles, WorkloadApi
from countersign.mesh.certificates import write_certificates
from countersign.policy.parse import parse
from countersign.policy.problems import Code, PolicyError
from countersign.record.chain import Chain
from countersign.record.entry import entry
from countersign.record.lines import Lines
from countersign.wire.codec import decode

from tests.record.answering import DENY, answered, full_request

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PEERS = (ROOT / "docs" / "peers.md").read_text()
KEYS = (ROOT / "docs" / "keys.md").read_text()
DIFFERENCES = (ROOT / "docs" / "differences.md").read_text()


def _rows(text: str) -> list[list[str]]:
    """The cells of every table row but the heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_difference_names_a_test_that_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", DIFFERENCES)

    assert len(named) == len([row for row in _rows(DIFFERENCES) if row[-1].strip("| ") != "test"])
    missing = [name for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()]
    assert not missing


def test_every_claim_about_peers_names_a_test_that_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PEERS)

    assert len([row for row in _rows(PEERS) if "::" in row[-1]]) == 14
    assert not [name for file, name in named if f"def {name}(" not in (ROOT / "tests" / file).read_text()]


def test_the_reasons_that_the_peers_page_names_exist() -> None:
    named = set(re.findall(r"`((?:token|peer)-[a-z-]+)`", PEERS))

    assert named <= set(map(str, Reason))
    assert {reason for reason in map(str, Reason) if reason.startswith(("token-bound", "token-conf"))} <= named


def test_the_annotation_of_the_peers_page_binds_as_it_says() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PEERS, re.DOTALL)
    (resource,) = parse({"p.yaml": block}, None, lambda _: "").resources.request_authentications
    claims = {"azp": "sleep", "kubernetes.io": {"namespace": "apps"}}
    values = dict(re.findall(r"^\| `peer\.(\w+)` \| `(.*)` \|$", PEERS, re.MULTILINE))
    peer = SpiffeId.parse(values["id"])

    for binding in resource.rules[0].bindings:
        hold_binding(binding, claims, peer)
    with pytest.raises(BindingError):
        hold_binding(resource.rules[0].bindings[0], {"azp": "batch"}, peer)
    assert {part: PeerPart(part).of(peer) for part in values} == values
    assert set(values) == set(PeerPart)


def test_the_command_of_the_peers_page_runs_as_written(tmp_path: Path) -> None:
    write_certificates(tmp_path, dt.datetime.now(dt.UTC))
    (command,) = re.findall(r"^    countersign (cert .*)$", PEERS, re.MULTILINE)
    words = [sys.executable, "-m", "countersign", *command.split()]
    folder = tmp_path / "sleep"
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=folder)

    assert (result.returncode, result.stderr) == (0, "")
    assert "accepted" in result.stdout


def test_the_commands_of_the_tokens_page_run_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tokens.md").read_text()
    commands = re.findall(r"^    countersign (token .*)$", page, re.MULTILINE)
    inspect, mint = commands
    assert f"    countersign {inspect}\n" in README
    shutil.copytree(ROOT / "envoy" / "policies", tmp_path / "envoy" / "policies")
    said = []
    for command, code in ((mint, 0), (inspect, 1)):  # the policies of the demo trust another issuer
        line = f"{shlex.quote(sys.executable)} -m countersign {command}"
        result = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)  # noqa: S602
        assert result.returncode == code, result.stderr
        said.append(result.stdout)

    assert said[1].startswith("REFUSED: token-unknown-issuer")
    assert {"signing-key.json", "jwks.json"} == {path.name for path in (tmp_path / "dev-keys").iterdir()}


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^    make (\w+)$", README, re.MULTILINE)

    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in commands)


def test_the_gate_runs_the_readmes_test_command_and_lint() -> None:
    gate = (ROOT / ".ci" / "run").read_text().splitlines()

    assert {"make lint", "make test"} <= set(gate)


@pytest.mark.parametrize("page", ["README.md", "docs/workers.md"])
def test_the_serve_command_of_a_page_has_flags_that_exist(page: str) -> None:
    commands = re.findall(r"^ +countersign (serve .*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        words = [sys.executable, "-m", "countersign", *command.split(), "--help"]
        result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

        assert result.returncode == 0
        assert all(word in result.stdout for word in command.split() if word.startswith("--"))


@pytest.mark.parametrize(("verb", "code", "said"), [("explain", 1, "readers"), ("analyze", 0, "CS0114")])
def test_the_commands_that_need_no_server_run_as_written(verb: str, code: int, said: str) -> None:
    (command,) = re.findall(rf"^    countersign ({verb} .*)$", README, re.MULTILINE)
    words = [sys.executable, "-m", "countersign", *command.split()]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)

    assert result.returncode == code
    assert said in result.stdout


def test_the_waypoint_of_the_page_is_one_for_its_service() -> None:
    page = (ROOT / "docs" / "workloads.md").read_text()
    (command,) = re.findall(r"^    countersign (explain .*)$", page, re.MULTILINE)
    words = [sys.executable, "-m", "countersign", *command.split()]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (settings,) = yaml.safe_load(block)["typed_per_filter_config"].values()
    said = settings["check_settings"]["context_extensions"]

    assert result.returncode == 0
    assert (
        "namespace infra, no labels, gateway waypoint of class istio-waypoint, for Service/apps/books" in result.stdout
    )
    assert [f"{key}={value}" for key, value in said.items()] == re.findall(r"--context (\S+)", command)


def test_the_filter_of_the_readme_is_set_as_the_one_of_the_demo() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (snippet,) = yaml.safe_load(block)["http_filters"]
    demo = yaml.safe_load((ROOT / "envoy" / "httpbin.yaml").read_text())
    chains = demo["static_resources"]["listeners"][0]["filter_chains"]
    real = chains[0]["filters"][0]["typed_config"]["http_filters"][0]

    assert snippet == real


def test_the_configuration_of_the_page_on_keys_can_be_read() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", KEYS, re.DOTALL)
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    config = parse_config(block.encode(), "countersign.yaml", parser.parse_args([]).settings.values())

    assert {"namespace", "policies", "keys_cache_directory", "keys_max_stale"} <= set(config.values)
    assert len(config.issuers) == 4


def test_the_command_of_the_page_on_keys_prints_a_configuration() -> None:
    (command,) = re.findall(r"^    countersign (serve .*)$", KEYS, re.MULTILINE)
    words = [sys.executable, "-m", "countersign", *command.split()]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0
    assert yaml.safe_load(result.stdout)["posture"] == "strict"


def test_the_commands_of_the_page_on_keys_have_flags_that_exist(tmp_path: Path) -> None:
    commands = re.findall(r"^    countersign jwks (.*)$", KEYS, re.MULTILINE)
    (tmp_path / "keys.json").write_text('{"keys":[]}')
    (tmp_path / "air-gapped.json").write_text('{"keys":[]}')
    (block,) = re.findall(r"```yaml\n(.*?)```", KEYS, re.DOTALL)
    (tmp_path / "countersign.yaml").write_text(block)

    assert len(commands) == 3
    for command in commands:
        remote = "https://issuer.example" in command  # nobody answers there: only its words are tried
        words = [sys.executable, "-m", "countersign", "jwks", *command.split(), *(["--help"] if remote else [])]
        result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert result.returncode == (0 if remote else 1), result.stderr


def test_the_commands_of_the_page_on_tls_are_settings_as_is_its_file() -> None:
    page = (ROOT / "docs" / "tls.md").read_text()
    commands = re.findall(r"^    countersign serve ((?:.*\\\n)+.*)$", page, re.MULTILINE)
    block, cluster = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    files, spiffe = (
        serve._settings(layered(parser.parse_args(each.replace("\\\n", "").split()), {})) for each in commands
    )
    config = parse_config(block.encode(), "countersign.yaml", parser.parse_args([]).settings.values())
    said = [config.values[f"tls_{name}"].value for name in ("cert", "key", "client_ca", "allow_client")]

    assert files.tls is not None
    assert spiffe.tls is not None
    assert isinstance(files.tls.source, TlsFiles)
    assert said == [
        files.tls.source.certificate,
        files.tls.source.key,
        files.tls.source.client_ca,
        [*files.tls.callers],
    ]
    assert isinstance(spiffe.tls.source, WorkloadApi)
    assert str(Reason.CALLER_NOT_ALLOWED) in page
    assert yaml.safe_load(cluster)["name"] == "countersign"


LOG = (ROOT / "docs" / "decision-log.md").read_text()


def test_the_configuration_of_the_page_on_the_log_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", LOG, re.DOTALL)
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    arguments = parser.parse_args(["--config", str(tmp_path / "countersign.yaml")])
    (tmp_path / "countersign.yaml").write_text(block)
    settings = record_of(layered(arguments, {}).arguments)

    assert settings is not None
    assert (settings.mask, settings.sample_allows) == (("/input/token/sub", "/input/source/address"), 0.1)
    assert settings.key_file == tmp_path / "audit.key"


def test_the_record_of_the_page_has_the_fields_of_a_real_one() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", LOG, re.DOTALL)
    shown = json.loads(block)
    payload = full_request().SerializeToString()
    real = entry(answered(payload, DENY), decode(payload), {"app": "", "id": "", "version": ""})

    def within(shown: Any, real: Any, at: str) -> None:
        if isinstance(shown, dict):
            assert set(shown) <= set(real), at
            for name, member in shown.items():
                within(member, real[name], f"{at}/{name}")

    within(shown, real, "")
    assert {"input", "result", "metrics", "policies", "decision_id", "timestamp"} <= set(shown)


def test_the_commands_of_the_page_on_the_log_run_as_written(tmp_path: Path) -> None:
    commands = re.findall(r"^    ((?:openssl|countersign) .*)$", LOG, re.MULTILINE)
    chain = Lines(labels={}, chain=Chain())
    started, stopped = (*chain.start(0, b""),), (*chain.stop(0),)
    (tmp_path / "decisions.jsonl").write_bytes(b"".join(line + b"\n" for line in (*started, *stopped)))
    assert len(commands) == 6
    for command in commands:
        words = shlex.split(command)
        if words[0] == "countersign":
            words[:1] = [sys.executable, "-m", "countersign"]
        help_only = ["--help"] if "serve" in words else []
        result = subprocess.run(
            [*words, *help_only], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )
        assert result.returncode == (1 if "verify" in words else 0), result.stderr  # the key has not signed this one
        if help_only:
            assert all(word in result.stdout for word in words if word.startswith("--"))
        if "verify" in words:
            assert result.stdout.count("unsigned: a st") == 2


def test_the_commands_of_the_page_on_clusters_are_settings_and_its_roles_are_those_of_the_component() -> None:
    page = (ROOT / "docs" / "cluster-policies.md").read_text()
    commands = re.findall(r"^    countersign serve (.*)$", page, re.MULTILINE)
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    found = [serve._settings(layered(parser.parse_args(shlex.split(each)), {})).policies for each in commands]
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    component = ROOT / "deploy" / "kubernetes" / "cluster-policies"
    role, binding = yaml.safe_load_all((component / "rbac.yaml").read_text())

    assert found == [
        (Cluster(),),
        (Cluster(namespaces=("apps", "istio-system")),),
        (Cluster(kubeconfig=Path("/etc/countersign/kubeconfig"), context="mesh"),),
    ]
    assert yaml.safe_load((component / "kustomization.yaml").read_text())["resources"] == ["rbac.yaml"]
    assert role["rules"] == [
        {"apiGroups": [GROUP], "resources": [*PLURALS.values()], "verbs": ["get", "list", "watch"]}
    ]
    assert yaml.safe_load(block)["roleRef"] == binding["roleRef"]
    assert yaml.safe_load(block)["subjects"] == binding["subjects"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert re.search(r"more than ([\d,]+) objects", page, re.IGNORECASE)[1] == f"{MAX_OBJECTS:,}"  # type: ignore[index]
    assert f"{MAX_CHARACTERS // 1024**2} MiB" in page


def _policy(**spec: Any) -> str:
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": spec.pop("kind", "AuthorizationPolicy"),
        "metadata": {"name": "n", "namespace": "ns"},
        "spec": spec,
    }
    return yaml.safe_dump(document)


def test_what_is_misspelt_is_refused_and_not_ignored() -> None:
    sound = {"issuer": "https://i.example", "jwksUri": "https://i.example/keys"}
    assert parse({"p.yaml": _policy(kind="RequestAuthentication", jwtRules=[sound])}, None, lambda _: "").resources
    misspelt = {**sound, "audience": ["a"]}
    with pytest.raises(PolicyError) as error:
        parse({"p.yaml": _policy(kind="RequestAuthentication", jwtRules=[misspelt])}, None, lambda _: "")

    assert {problem.code for problem in error.value.problems} == {Code.UNKNOWN_FIELD}


@pytest.mark.envoy
def test_the_table_of_the_readme_is_what_the_demo_prints() -> None:
    (block,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    command = [sys.executable, "-m", "countersign", "demo"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    printed = [" ".join(line.split()) for line in result.stdout.splitlines()]

    assert result.returncode == 0
    for line in block.splitlines():
        words = " ".join(line.split())  # the last column is left out, and columns are as wide as they need
        assert words == "..." or any(each.startswith(words) for each in printed), line


def test_the_commands_of_the_envoy_page_run() -> None:
    text = (ROOT / "docs" / "envoy-config.md").read_text()
    commands = re.findall(r"^    (countersign .*)$", text, re.MULTILINE)

    assert len(commands) == 2
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
