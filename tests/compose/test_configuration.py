"""docker-compose.yml as Docker Compose reads it: it needs no engine for that."""

from pathlib import Path

import pytest
import yaml

from tests.compose.project import ROOT, Project

SERVICES = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
OBSERVERS = {"prometheus", "grafana"}


@pytest.fixture
def unhosted(images: Path, tmp_path: Path) -> Project:
    assert images.is_dir()
    return Project(tmp_path)


def test_compose_takes_the_file_and_adds_observability_only_when_it_is_asked_to(unhosted: Project) -> None:
    plain = unhosted.configuration()
    observed = unhosted.configuration("--profile", "observability")

    assert set(plain["services"]) == SERVICES - OBSERVERS
    assert set(observed["services"]) == SERVICES
    assert plain["name"] == "countersign"


def test_every_service_as_compose_reads_it_is_without_privilege(unhosted: Project) -> None:
    """After merges and anchors: a key that a service says itself would replace what it inherits."""
    for name, service in unhosted.configuration("--profile", "observability")["services"].items():
        assert service["user"] == "65532:65532", name
        assert service["read_only"] is True, name
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"]), name
        assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}, name
        mounted = [volume for volume in service.get("volumes", ()) if volume["type"] == "bind"]
        assert all(volume["read_only"] and Path(volume["source"]).exists() for volume in mounted), name


def test_compose_refuses_a_file_with_a_key_that_there_is_not(unhosted: Project) -> None:
    file = unhosted.directory / "docker-compose.yml"
    file.write_text(file.read_text().replace("read_only: true", "readonly: true"))

    refused = unhosted.run("config", "--quiet")

    assert refused.returncode != 0
    assert "readonly" in refused.stderr
