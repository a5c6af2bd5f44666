"""docker-compose.yml runs what `make demo` runs: the same files, with commands that the CLI has."""

import argparse
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from countersign.cli.config.file import read_config

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS, ENVOYS = "countersign:local", "envoyproxy/envoy:v1.40.0"
OBSERVERS = {"prometheus", "grafana"}

each_service = pytest.mark.parametrize("name", sorted(SERVICES))
each_of_ours = pytest.mark.parametrize("name", sorted(n for n, s in SERVICES.items() if s["image"] == OURS))
each_envoy = pytest.mark.parametrize("name", ["httpbin", "sleep", "edge"])


def _parse(command: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    import_module(f"countersign.cli.{command[0]}").add_arguments(parser)
    return parser.parse_args(command[1:])


def _mounts(service: dict[str, Any]) -> dict[str, str]:
    """Target to source, of every volume."""
    return {parts[1]: parts[0] for parts in (volume.split(":") for volume in service.get("volumes", []))}


@each_service
def test_there_are_two_images_and_no_other_but_for_observability(name: str) -> None:
    service = SERVICES[name]

    assert service.get("profiles", []) == (["observability"] if name in OBSERVERS else [])
    assert (service["image"] in {OURS, ENVOYS}) == (name not in OBSERVERS)
    assert re.fullmatch(r".+:(local|v?\d+\.\d+\.\d+)", service["image"])


@each_service
def test_every_file_that_is_mounted_exists_and_cannot_be_written(name: str) -> None:
    volumes = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
    files = [volume for volume in volumes if volume[0].startswith(".")]

    assert [source for source, *_ in files if not (ROOT / source).exists()] == []
    assert all(how == ["ro"] for _, _, *how in files)
    assert {volume[0] for volume in volumes} - {file[0] for file in files} <= COMPOSE["volumes"].keys()


def test_prometheus_scrapes_the_probes_of_countersign_under_the_name_that_the_alerts_know() -> None:
    directory = ROOT / "deploy" / "prometheus"
    settings = yaml.safe_load((directory / "prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    (static,) = job["static_configs"]
    command = SERVICES["countersign"]["command"]

    assert (
        f"--config.file={_target('prometheus', './deploy/prometheus')}/prometheus.yml"
        in SERVICES["prometheus"]["command"]
    )
    assert static["targets"] == ["countersign:8282"]
    assert command[command.index("--probes") + 1] == "0.0.0.0:8282"
    assert [name for name in settings["rule_files"] if not (directory / name).is_file()] == []
    jobs = set(re.findall(r'job="(\w+)"', (directory / "alerts.yml").read_text()))
    assert jobs == {job["job_name"]}


def test_grafana_shows_the_dashboard_from_prometheus() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "countersign.yml").read_text())["providers"]
    environment = SERVICES["grafana"]["environment"]
    dashboard = _target("grafana", "./deploy/grafana/countersign.json")

    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"
    assert environment["GF_PATHS_PROVISIONING"] == _target("grafana", "./deploy/grafana/provisioning")
    assert str(Path(dashboard).parent) == provider["options"]["path"]
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == dashboard


def _target(service: str, source: str) -> str:
    """Where a service mounts a file or directory of the repository."""
    (target,) = (to for to, origin in _mounts(SERVICES[service]).items() if origin == source)
    return target


@each_service
def test_a_container_has_no_privilege_and_writes_nothing(name: str) -> None:
    service = SERVICES[name]

    assert service["user"] == "65532:65532"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 (inside the container)
    assert "privileged" not in service


@each_service
def test_what_runs_for_long_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]

    if name in {"certificates", "demo"}:  # they end
        assert check == {"disable": True}
    else:
        how, *words = check["test"]
        assert how in {"CMD", "CMD-SHELL"}
        # Podman 4 joins and cuts them again.
        assert len(words) == 1 if how == "CMD-SHELL" else not any(" " in word for word in words)
        assert {"interval", "timeout", "retries"} < check.keys()


@each_service
def test_a_service_waits_for_health_or_completion(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        ends = other == "certificates"
        assert how == {"condition": "service_completed_successfully" if ends else "service_healthy"}


@each_of_ours
def test_the_command_is_one_that_the_cli_has(name: str) -> None:
    assert vars(_parse(SERVICES[name]["command"]))


def test_the_cli_refuses_what_it_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parse(["demo", "certificate", "--out", "/run/mesh/certs"])

    assert "certificate" in capsys.readouterr().err


@each_envoy
def test_an_envoy_mounts_the_file_that_the_demo_runs(name: str) -> None:
    source = _mounts(SERVICES[f"envoy-{name}"])["/etc/envoy/envoy.yaml"]

    assert source == f"./envoy/{name}.yaml"
    assert (ROOT / source).is_file()
    assert "/etc/envoy/envoy.yaml" in SERVICES[f"envoy-{name}"]["command"]


@each_envoy
def test_every_path_of_a_configuration_is_in_a_mount(name: str) -> None:
    mounts = _mounts(SERVICES[f"envoy-{name}"])
    directories = set(re.findall(r"(/run/(?:mesh/certs|countersign))/", (ROOT / f"envoy/{name}.yaml").read_text()))

    assert directories
    assert directories <= mounts.keys()


@each_envoy
def test_every_address_of_a_configuration_is_a_service(name: str) -> None:
    aliases = {
        alias for s in SERVICES.values() for alias in s.get("networks", {}).get("default", {}).get("aliases", [])
    }
    names = set(re.findall(r"address: ([\w.-]+), port_value", (ROOT / f"envoy/{name}.yaml").read_text()))

    assert names - {"0.0.0.0", "127.0.0.1"} <= SERVICES.keys() | aliases


def test_countersign_and_the_server_sidecar_share_the_socket_and_nobody_else_does() -> None:
    sharing = {name for name, service in SERVICES.items() if "/run/countersign" in _mounts(service)}
    command = SERVICES["countersign"]["command"]

    assert sharing == {"countersign", "envoy-httpbin"}
    assert command[command.index("--listen") + 1] == "unix:/run/countersign/authz.sock"
    assert "path: /run/countersign/authz.sock" in (ROOT / "envoy/httpbin.yaml").read_text()


def test_the_demo_alone_shares_the_issuers_socket_and_nobody_may_write_what_it_reads() -> None:
    command = SERVICES["demo"]["command"]
    issuer, countersign = SERVICES["issuer"]["command"], SERVICES["countersign"]["command"]
    ways = {
        name: {volume for volume in service.get("volumes", []) if volume.split(":")[0] in {"issuer", "decisions"}}
        for name, service in SERVICES.items()
    }

    assert {name: way for name, way in ways.items() if way} == {
        "issuer": {"issuer:/run/issuer"},
        "countersign": {"decisions:/run/decisions"},
        "demo": {"issuer:/run/issuer:ro", "decisions:/run/decisions:ro"},
    }
    assert "ports" not in SERVICES["issuer"]
    assert issuer[issuer.index("--minter") + 1] == command[command.index("--minter") + 1]
    log = countersign[countersign.index("--decision-log") + 1]
    assert log == f"file:{command[command.index('--decisions') + 1]}"


def test_the_demo_asks_at_the_ports_of_the_sidecars_and_knows_the_policies_by_countersigns_name() -> None:
    command = SERVICES["demo"]["command"]
    policies = SERVICES["countersign"]["command"]
    aliases = SERVICES["envoy-httpbin"]["networks"]["default"]["aliases"]

    for name, listening in (("sleep", 15001), ("edge", 8080), ("httpbin", 15006)):
        host, port = command[command.index(f"--{name}") + 1].split(":")
        assert host in {f"envoy-{name}"} | set(aliases)
        assert int(port) == listening
        text = (ROOT / f"envoy/{name}.yaml").read_text()
        assert f"socket_address: {{address: 0.0.0.0, port_value: {listening}}}" in text
    assert command[command.index("--policies") + 1] == policies[policies.index("--policies") + 1]
    assert set(SERVICES["demo"]["depends_on"]) >= {"issuer", "countersign", *(f"envoy-{n}" for n in ("sleep", "edge"))}


def test_countersign_reads_the_policies_of_the_demo_and_cannot_write_them() -> None:
    service = SERVICES["countersign"]
    (volume,) = (each for each in service["volumes"] if each.startswith("./envoy/policies:"))
    command = service["command"]

    assert volume.split(":")[1:] == [command[command.index("--policies") + 1], "ro"]


def test_the_issuer_is_where_the_policies_look_for_its_keys() -> None:
    command = SERVICES["issuer"]["command"]
    text = (ROOT / "envoy/policies/request-authentication.yaml").read_text()

    assert "jwksUri: http://issuer:8000/jwks.json" in text
    service = SERVICES["countersign"]
    mounted = _mounts(service)[service["command"][service["command"].index("--config") + 1]]
    (way,) = read_config(ROOT / mounted, None).issuers
    assert (way.jwks_uri, way.access.insecure_http) == ("http://issuer:8000/jwks.json", True)
    assert _parse(command).listen == ("0.0.0.0", 8000)


@each_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_image_runs_unprivileged_and_checks_its_health() -> None:
    text = (ROOT / "Dockerfile").read_text()

    assert "\nUSER 65532:65532\n" in text
    assert 'CMD ["countersign", "health"]' in text
    assert '\nENTRYPOINT ["countersign"]\nCMD ["serve"]\n' in text
    assert "install -d -m 0700 /volumes/countersign /volumes/mesh/certs /volumes/issuer /volumes/decisions" in text
    assert "COPY --from=build --chown=65532:65532 /volumes /run" in text
