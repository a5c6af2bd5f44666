"""The Go peers, as their users start them: built at a pinned version, with the benchmark's rules in their own words."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml

from bench import material
from bench.http2 import Address
from bench.prepare import HOT_RULES, Bench, free_port

_HERE: Final = Path(__file__).parent
_BUILD_WITHIN: Final = 900.0  # seconds


class LeftOutError(RuntimeError):
    """An arm cannot be had on this machine; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program to build from the Go module proxy.

    ``replaced`` is what its own go.mod replaces, which counts only where that is the main module's.
    """

    name: str
    module: str
    version: str
    package: str
    replaced: str = ""


OPA_ENVOY: Final = Tool(
    name="opa-envoy-plugin",
    module="github.com/open-policy-agent/opa-envoy-plugin",
    version="v1.14.1-envoy",
    package="github.com/open-policy-agent/opa-envoy-plugin/cmd/opa-envoy-plugin",
)
HEIMDALL: Final = Tool(
    name="heimdall",
    module="github.com/dadrus/heimdall",
    version="v0.17.18",
    package="github.com/dadrus/heimdall",
    replaced="github.com/aws/aws-sdk-go-v2/service/s3 v1.95.1 => github.com/aws/aws-sdk-go-v2/service/s3 v1.97.3",
)


def noop(directory: Path) -> Path:
    """Build the Go server of ours that does nothing. Raise `LeftOutError` if it cannot be had."""
    binary = directory / "go-noop"
    _go(["build", "-o", str(binary), "./noop"], cwd=_HERE / "go")
    return binary


def build(tool: Tool, directory: Path) -> Path:
    """Build a peer. Raise `LeftOutError` if it cannot be had.

    By a go.mod and not by `go install PACKAGE@VERSION`, which refuses modules that replace others.
    """
    home = directory / f"go-{tool.name}"
    home.mkdir()
    lines = [f"module countersign.bench/{tool.name}", "go 1.26", f"require {tool.module} {tool.version}"]
    lines += [f"replace {tool.replaced}"] if tool.replaced else []
    (home / "go.mod").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    binary = home / tool.name
    _go(["build", "-mod=mod", "-o", str(binary), tool.package], cwd=home)
    return binary


def opa_envoy(binary: Path, bench: Bench, address: Address, *, decision_log: bool) -> list[str]:
    """OPA with its Envoy plugin on a unix socket; its own API on a port that nobody asks."""
    data = bench.directory / "opa.json"
    data.write_text(json.dumps(_opa_data(bench)), encoding="utf-8")
    settings = {
        "plugins": {"envoy_ext_authz_grpc": {"addr": f"unix://{address}", "path": "bench/allow"}},
        "decision_logs": {"console": decision_log},
    }
    config = bench.directory / "opa-config.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [str(binary), "run", "--server", "--addr", f"127.0.0.1:{free_port()}", "--config-file", str(config)]
    command += ["--disable-telemetry", "--log-level", "info" if decision_log else "error"]
    return _on_one_core([*command, str(_HERE / "go" / "opa_envoy.rego"), str(data)])


def _opa_data(bench: Bench) -> Mapping[str, Any]:
    rules = [
        {"principal": f"spiffe://{rule.principal}", "prefix": rule.path.removesuffix("*"), "group": rule.group}
        for rule in material.rules(HOT_RULES)
    ]
    jwks = json.dumps(bench.issuer.jwks())
    return {"rules": rules, "issuer": material.ISSUER, "audience": material.AUDIENCE, "jwks": jwks}


def heimdall(binary: Path, bench: Bench, address: Address) -> list[str]:
    """Heimdall in its mode for Envoy, which listens on TCP. It keeps the issuer's keys for ten minutes."""
    rules = bench.directory / "heimdall-rules.yaml"
    rules.write_text(yaml.safe_dump(_heimdall_rules()), encoding="utf-8")
    config = bench.directory / "heimdall.yaml"
    config.write_text(yaml.safe_dump(_heimdall_config(bench.jwks_uri, address, rules)), encoding="utf-8")
    command = [str(binary), "serve", "decision", "--envoy-grpc", "--config", str(config)]
    # As it says itself, it starts neither without TLS nor with a default of its own kind without these.
    insecure = ("--insecure-skip-all-tls-enforcement", "--insecure-skip-secure-default-rule-enforcement")
    return _on_one_core([*command, *insecure])


def _heimdall_config(jwks_uri: str, address: Address, rules: Path) -> Mapping[str, Any]:
    token = {
        "jwks_endpoint": {"url": jwks_uri},
        "jwt_source": [{"header": "Authorization", "scheme": "Bearer"}],
        "assertions": {
            "issuers": [material.ISSUER],
            "audience": [material.AUDIENCE],
            "allowed_algorithms": list(material.ALGORITHMS),
        },
    }
    host, port = cast("tuple[str, int]", address)
    return {
        "serve": {"host": host, "port": port},
        "management": {"host": "127.0.0.1", "port": free_port()},
        "log": {"level": "error", "access_log_enabled": False},
        "metrics": {"enabled": False},
        "tracing": {"enabled": False},
        "mechanisms": {
            "authenticators": [{"id": "token", "type": "jwt", "config": token}],
            "authorizers": [
                {"id": "rule", "type": "cel", "config": {"expressions": [{"expression": "false"}]}},
                {"id": "nobody", "type": "deny"},
            ],
        },
        "default_rule": {"execute": [{"authenticator": "token"}, {"authorizer": "nobody"}]},
        "providers": {"file_system": {"src": str(rules)}},
    }


def _heimdall_rules() -> Mapping[str, Any]:
    """It knows no verified principal: who calls is read from the header that Envoy writes."""
    return {
        "version": "1alpha4",
        "name": "bench",
        "rules": [
            {
                "id": f"rule-{number}",
                "match": {"routes": [{"path": f"{rule.path}*"}], "methods": ["GET"]},
                "execute": [{"authenticator": "token"}, {"authorizer": "rule", "config": _expressions(rule)}],
            }
            for number, rule in enumerate(material.rules(HOT_RULES))
        ],
    }


def _expressions(rule: material.Rule) -> Mapping[str, Any]:
    caller = f"Request.Header('X-Forwarded-Client-Cert').endsWith(';URI=spiffe://{rule.principal}')"
    return {"expressions": [{"expression": caller}, {"expression": f"'{rule.group}' in Subject.Attributes.groups"}]}


def _on_one_core(command: Sequence[str]) -> list[str]:
    return ["env", "GOMAXPROCS=1", *command]


def go_noop(binary: Path, address: Address) -> list[str]:
    """The command of `noop`."""
    return _on_one_core([str(binary), str(address)])


def _go(arguments: Sequence[str], cwd: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise LeftOutError("no Go toolchain")
    result = subprocess.run(
        [go, *arguments], cwd=cwd, env={**os.environ, "GOWORK": "off"}, capture_output=True, text=True,
        timeout=_BUILD_WITHIN, check=False,
    )  # fmt: skip
    if result.returncode:
        said = result.stderr.strip().splitlines() or ["(nothing)"]
        raise LeftOutError(f"`go {' '.join(arguments)}` failed: {said[-1].strip()}")
