"""`serve --print-config`: every setting with where it is from, in a form that is read back as the same."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.cli import serve
from countersign.cli.config.layers import Layered
from countersign.cli.config.printed import printed

from tests.cli.config.test_config import EVERY_FIELD, layer, settings

ISSUERS = """\
issuers:
- {issuer: https://a.example, caFile: ca.pem, proxy: "http://proxy:3128", addresses: [10.0.0.0/8, fd00::/8]}
- {jwksUri: "http://b.example/keys", insecureHttp: true, required: true}
- {issuer: https://c.example, jwksFile: keys.json}
"""
IDS = "spiffe://td/a,spiffe://td/b"


def text_of(given: Layered) -> str:
    return printed(given, settings().values(), serve._effective(serve._settings(given)))


def lines(text: str) -> dict[str, str]:
    """The origin of each field by its name."""
    return dict(re.findall(r"^ *(\w+): .*# (.*)$", text, re.MULTILINE))


def read_back(text: str, directory: Path) -> Layered:
    file = directory / "printed.yaml"
    file.write_text(text)
    return layer(file=str(file))


def test_the_defaults_are_read_back_as_they_are(tmp_path: Path) -> None:
    text = text_of(layer())

    assert set(lines(text).values()) == {"default"}
    assert len(lines(text)) == len(settings())
    assert serve._settings(read_back(text, tmp_path)) == serve._settings(layer())


@pytest.mark.parametrize("drop", [" spiffeSocket", " (cert|key|clientCa)"])
def test_every_field_is_read_back_as_it_was_from_wherever_the_text_is(tmp_path: Path, drop: str) -> None:
    source, other = tmp_path / "a" / "countersign.yaml", tmp_path / "b"
    for directory in (source.parent, other):
        directory.mkdir()
    source.write_text(
        re.sub(rf"^( {drop}|remoteIpHeader|  (spool|caFile|tokenFile)): .*\n", "", EVERY_FIELD, flags=re.MULTILINE)
        + ISSUERS
    )
    given = layer(file=str(source))
    text = text_of(given)
    again = read_back(text, other)

    assert vars(again.arguments) == vars(given.arguments)
    assert again.issuers == given.issuers
    assert serve._settings(again) == serve._settings(given)
    assert text_of(again).splitlines()[0] == text.splitlines()[0]


def test_each_setting_says_where_it_is_from(tmp_path: Path) -> None:
    file = tmp_path / "countersign.yaml"
    file.write_text("namespace: apps\nkeys:\n  maxStale: 2d\nissuers:\n- {issuer: https://a, required: true}\n")
    given = layer("--posture", "istio", file=str(file), TRUST_DOMAIN="td", NAMESPACE="others")
    origins = lines(text_of(given))

    assert origins["posture"] == "--posture"
    assert origins["trustDomain"] == "COUNTERSIGN_TRUST_DOMAIN"
    assert origins["namespace"] == "COUNTERSIGN_NAMESPACE"  # which wins over the file
    assert origins["maxStale"] == f"{file}:3:13"
    assert origins["peer"] == "default"
    assert f"issuers: # {file}:5:1\n" in text_of(given)


def test_values_that_look_like_something_else_stay_what_they_are(tmp_path: Path) -> None:
    given = layer(
        "--label", "v=1", "--label", "on=yes", "--label", "x=#: {a}", "--namespace", "null", "--listen", "[::1]:1"
    )
    again = read_back(text_of(given), tmp_path)

    assert dict(again.arguments.label) == {"v": "1", "on": "yes", "x": "#: {a}"}
    assert again.arguments.namespace == "null"
    assert again.arguments.listen == given.arguments.listen


def test_the_query_of_a_url_is_hidden(tmp_path: Path) -> None:
    file = tmp_path / "countersign.yaml"
    file.write_text(
        'issuers:\n- {jwksUri: "https://a.example/keys?key=secret", proxy: "http://p:1/?k=secret"}\n'
        'audit: {log: "https://c.example/logs?key=secret", spool: s}\n'
    )
    text = text_of(layer(file=str(file)))
    (issuer,) = yaml.safe_load(text)["issuers"]

    assert issuer == {"jwksUri": "https://a.example/keys?REDACTED", "proxy": "http://p:1/?REDACTED"}
    assert yaml.safe_load(text)["audit"]["log"] == "https://c.example/logs?REDACTED"
    assert "secret" not in text


def run(*words: str, **environment: str) -> Any:
    command = [sys.executable, "-m", "countersign", "serve", "--print-config", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_the_command_prints_and_ends_and_its_text_is_a_configuration(tmp_path: Path) -> None:
    first = run("--listen", "unix:/run/a.sock", COUNTERSIGN_WORKERS="3")
    file = tmp_path / "countersign.yaml"
    file.write_text(first.stdout)
    second = run("--config", str(file))

    assert (first.returncode, second.returncode) == (0, 0)
    assert "listen: ['unix:/run/a.sock'] # --listen\n" in first.stdout
    assert "workers: 3 # COUNTERSIGN_WORKERS\n" in first.stdout
    assert yaml.safe_load(first.stdout) == yaml.safe_load(second.stdout)


def test_spiffes_own_variable_is_an_origin(tmp_path: Path) -> None:
    first = run("--tls-allow-client", "spiffe://td/a", SPIFFE_ENDPOINT_SOCKET="unix:///run/agent.sock")
    file = tmp_path / "countersign.yaml"
    file.write_text(first.stdout)

    assert "spiffeSocket: 'unix:/run/agent.sock' # SPIFFE_ENDPOINT_SOCKET\n" in first.stdout
    assert run("--config", str(file)).returncode == 0


def test_what_cannot_work_is_refused_before_it_is_printed() -> None:
    result = run("--listen", "0.0.0.0:1")

    assert (result.returncode, result.stdout) == (2, "")
    assert "plaintext beyond this machine" in result.stderr


def test_an_admin_api_that_is_off_is_read_back_as_off(tmp_path: Path) -> None:
    text = text_of(layer("--admin", "off"))

    assert "admin: 'off' # --admin\n" in text
    assert serve._settings(read_back(text, tmp_path)).admin is None
