"""The manifests agree with the program, with each other, and with Kubernetes' restricted profile."""

import argparse
import os
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
from countersign.cli.config.layers import layered
from countersign.edge.addresses import TcpAddress, UnixAddress
from countersign.edge.kubernetes.address import Cluster
from countersign.edge.tls.settings import TlsFiles
from countersign.policy.parse import parse
from countersign.settings import Settings
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"
VALIDATE = KUBECTL.with_name("kubernetes-validate")
USER = 65532
PAGE = (ROOT / "docs" / "deploying.md").read_text()


def _load(name: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all((MANIFESTS / name).read_text())]


def _one(name: str) -> dict[str, Any]:
    (found,) = _load(name)
    return found


def _pod(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's spec, and Countersign's container in it."""
    pod = _one(name)["spec"]["template"]["spec"]
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    (container,) = (each for each in containers if each["name"] == "countersign")
    return pod, container


PODS = {name: _pod(name) for name in ("deployment/deployment.yaml", "sidecar/patch.yaml")}


def _settings(name: str, tmp_path: Path) -> Settings:
    """What the container's command comes to, by the parser of `serve` itself."""
    return _settings_of(PODS[name][1], tmp_path)


def _settings_of(container: dict[str, Any], tmp_path: Path) -> Settings:
    verb, *words = container["args"]
    assert verb == "serve"
    config = tmp_path / "countersign.yaml"
    shutil.copy(MANIFESTS / "deployment" / "countersign.yaml", config)
    mounted = "--config=/etc/countersign/config/countersign.yaml"
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return serve._settings(layered(parser.parse_args([w.replace(mounted, f"--config={config}") for w in words]), {}))


def _mounts(name: str) -> dict[str, dict[str, Any]]:
    """The volume at each path of the container."""
    pod, container = PODS[name]
    volumes = {each["name"]: each for each in pod["volumes"]}
    return {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in MANIFESTS.glob("*/kustomization.yaml")))
def test_whatever_a_kustomization_names_is_there_and_what_is_there_is_named(folder: str) -> None:
    found = _one(f"{folder}/kustomization.yaml")
    named = {each for each in found.get("resources", []) if not each.startswith("../")}
    named |= {each["path"] for each in found.get("patches", [])}
    named |= {file for each in found.get("configMapGenerator", []) for file in each["files"]}
    base = MANIFESTS / folder
    there = {str(path.relative_to(base)) for path in base.rglob("*.yaml")}

    assert named == there - {"kustomization.yaml", "values.yaml"}


@pytest.mark.parametrize("name", PODS)
def test_the_command_is_one_that_serve_takes_and_its_files_are_mounted(name: str, tmp_path: Path) -> None:
    settings = _settings(name, tmp_path)
    mounts = _mounts(name)

    assert settings.policies == (Path("/etc/countersign/policies"),)
    assert mounts["/etc/countersign/policies"]["configMap"]["name"] == "countersign-policies"
    assert not settings.insecure_listen


def test_with_policies_of_the_cluster_the_pod_may_and_can_ask_the_api_server(tmp_path: Path) -> None:
    pod, container = _pod("cluster-policies/deployment.yaml")
    _, before = PODS["deployment/deployment.yaml"]
    (egress,) = _one_list("cluster-policies/networkpolicy.yaml")
    cluster = _one("cluster-deployment/kustomization.yaml")

    assert container["args"] == [*before["args"], "--policies=kubernetes://"]
    assert _settings_of(container, tmp_path).policies == (Cluster(),)
    assert pod["automountServiceAccountToken"]
    assert (egress["op"], egress["path"]) == ("add", "/spec/egress/-")
    assert (cluster["resources"], cluster["components"]) == (["../deployment"], ["../cluster-policies"])


def _one_list(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((MANIFESTS / name).read_text())
    return found


def test_the_socket_is_in_memory_and_the_envoy_of_the_pod_has_it_and_its_group(tmp_path: Path) -> None:
    (address,) = _settings("sidecar/patch.yaml", tmp_path).listen
    pod, container = PODS["sidecar/patch.yaml"]
    assert isinstance(address, UnixAddress)
    volume = _mounts("sidecar/patch.yaml")[str(Path(address.path).parent)]
    (envoy,) = (each for each in pod["containers"] if each["name"] == "envoy")

    assert volume["emptyDir"]["medium"] == "Memory"
    assert {"name": volume["name"], "mountPath": "/run/countersign"} in envoy["volumeMounts"]
    assert pod["securityContext"]["fsGroup"] == container["securityContext"]["runAsGroup"] == USER
    assert container["restartPolicy"] == "Always"
    assert _settings("sidecar/patch.yaml", tmp_path).admin is None  # the application shares the loopback


def test_the_deployment_speaks_mtls_from_the_mounted_secret_to_listed_callers(tmp_path: Path) -> None:
    tls = _settings("deployment/deployment.yaml", tmp_path).tls
    volume = _mounts("deployment/deployment.yaml")["/etc/countersign/tls"]
    assert tls is not None
    assert isinstance(tls.source, TlsFiles)
    files = [tls.source.certificate, tls.source.key, tls.source.client_ca]

    assert [*map(str, files)] == [f"/etc/countersign/tls/{file}" for file in ("tls.crt", "tls.key", "ca.crt")]
    assert volume["secret"] == {"secretName": "countersign-tls", "defaultMode": 0o440}
    assert tls.callers


@pytest.mark.parametrize("name", PODS)
def test_ports_and_probes_are_those_that_are_served(name: str, tmp_path: Path) -> None:
    settings = _settings(name, tmp_path)
    _, container = PODS[name]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)

    assert ports["probes"] == settings.probes.port == parser.parse_args([]).settings["probes"].default.port
    assert settings.probes.host == "0.0.0.0"
    assert {each.port for each in settings.listen if isinstance(each, TcpAddress)} == {*ports.values()} - {8282}
    assert paths == {
        "startup": {"path": "/readyz", "port": "probes"},
        "readiness": {"path": "/readyz", "port": "probes"},
        "liveness": {"path": "/livez", "port": "probes"},
    }


@pytest.mark.parametrize("name", PODS)
def test_the_container_is_restricted_as_the_pod_security_standards_say(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a read-only root."""
    pod, container = PODS[name]
    held = {**pod["securityContext"], **container["securityContext"]}

    assert held["runAsNonRoot"] is True
    assert held["runAsUser"] == held["runAsGroup"] == USER
    assert held["allowPrivilegeEscalation"] is False
    assert held["capabilities"] == {"drop": ["ALL"]}
    assert held["seccompProfile"] == {"type": "RuntimeDefault"}
    assert held["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not {"sysctls", "windowsOptions", "procMount", "privileged"} & set(held)
    assert not [each for each in container["ports"] if "hostPort" in each]
    assert all({"emptyDir", "configMap", "secret"} & set(each) for each in pod["volumes"])
    assert pod["enableServiceLinks"] is False
    assert container["image"] == "countersign:local"
    assert {"requests", "limits"} <= set(container["resources"])


def test_a_stop_has_the_time_that_it_needs() -> None:
    pod, container = PODS["deployment/deployment.yaml"]

    assert pod["terminationGracePeriodSeconds"] >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + 2 + 10


def test_whatever_selects_the_pods_selects_them() -> None:
    deployment = _one("deployment/deployment.yaml")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    services = _load("deployment/service.yaml")
    scaled = _one("deployment/hpa.yaml")["spec"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        *(each["spec"]["selector"] for each in services),
        _one("deployment/pdb.yaml")["spec"]["selector"]["matchLabels"],
        _one("deployment/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in template["spec"]["topologySpreadConstraints"]),
    ]

    assert [each for each in selectors if each != labels] == []
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaled["minReplicas"] > _one("deployment/pdb.yaml")["spec"]["maxUnavailable"]
    assert "replicas" not in deployment["spec"]
    assert [each["spec"].get("clusterIP") for each in services] == [None, "None"]


def test_whatever_names_a_port_of_the_pods_names_one_that_is_there() -> None:
    _, container = PODS["deployment/deployment.yaml"]
    named = {each["name"] for each in container["ports"]}
    targets = [port["targetPort"] for each in _load("deployment/service.yaml") for port in each["spec"]["ports"]]

    assert targets == ["grpc", "grpc"]
    assert set(targets) <= named
    assert {each.get("protocol", "TCP") for each in container["ports"]} == {"TCP"}  # as the NetworkPolicy says


def test_the_namespace_refuses_pods_that_are_not_restricted_and_the_scale_has_its_measure() -> None:
    labels = _one("deployment/namespace.yaml")["metadata"]["labels"]
    (metric,) = _one("deployment/hpa.yaml")["spec"]["metrics"]
    _, container = PODS["deployment/deployment.yaml"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert metric["resource"]["target"]["type"] == "Utilization"  # of what is requested
    assert metric["resource"]["name"] in container["resources"]["requests"]


def test_the_network_lets_checks_and_probes_in_and_no_other_port() -> None:
    spec = _one("deployment/networkpolicy.yaml")["spec"]
    _, container = PODS["deployment/deployment.yaml"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == [
        p["name"] for p in container["ports"]
    ]
    assert all(rule["from"] for rule in spec["ingress"])


def test_the_policies_at_the_start_allow_nothing() -> None:
    text = (MANIFESTS / "deployment" / "policies" / "allow-nothing.yaml").read_text()
    (policy,) = parse({"p.yaml": text}, None, lambda _: "").resources.authorization_policies

    assert (policy.meta.namespace, policy.rules) == ("istio-system", ())


def test_istio_and_envoy_gateway_ask_the_service_and_fail_closed() -> None:
    service = _load("deployment/service.yaml")[0]
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    host = f"{name}.{_one('deployment/namespace.yaml')['metadata']['name']}.svc.cluster.local"
    (provider,) = _one("istio/values.yaml")["meshConfig"]["extensionProviders"]
    asked = provider["envoyExtAuthzGrpc"]
    policy = _one("istio/authorizationpolicy.yaml")["spec"]
    auth = _one("envoy-gateway/securitypolicy.yaml")["spec"]["extAuth"]

    assert (asked["service"], asked["port"], asked["failOpen"], asked["statusOnError"]) == (host, port, False, "503")
    assert (policy["action"], policy["provider"]["name"], policy["rules"]) == ("CUSTOM", provider["name"], [{}])
    assert _one("istio/destinationrule.yaml")["spec"]["host"] == host
    assert _one("istio/destinationrule.yaml")["spec"]["trafficPolicy"]["tls"]["subjectAltNames"]
    assert auth["failOpen"] is False
    assert auth["grpc"]["backendRefs"] == [{"name": name, "namespace": "countersign", "port": port}]
    assert _one("envoy-gateway/backendtlspolicy.yaml")["spec"]["validation"]["hostname"] == host


@pytest.mark.skipif(
    not os.environ.get("COUNTERSIGN_DATA"), reason="COUNTERSIGN_DATA is not set: Istio's CRDs are there"
)
def test_the_custom_policy_is_one_by_istios_own_schema() -> None:
    crd = Path(os.environ["COUNTERSIGN_DATA"]) / "istio" / "crd" / "authorizationpolicies.crd.yaml"
    (version,) = (each for each in yaml.safe_load(crd.read_text())["spec"]["versions"] if each["name"] == "v1")
    validator = Draft202012Validator(version["schema"]["openAPIV3Schema"])
    policy = _one("istio/authorizationpolicy.yaml")

    assert [*validator.iter_errors(policy)] == []
    assert [*validator.iter_errors({**policy, "spec": {**policy["spec"], "action": "ASK"}})]


def _built(folder: Path) -> str:
    result = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(not VALIDATE.exists(), reason="`make manifests` installs kubectl and Kubernetes' schemas")
@pytest.mark.parametrize("kind", ["deployment", "sidecar", "cluster-deployment"])
def test_what_kustomize_builds_is_what_kubernetes_takes(kind: str, tmp_path: Path) -> None:
    folder = MANIFESTS / kind
    if kind == "sidecar":
        folder = tmp_path
        shutil.copytree(MANIFESTS, tmp_path / "countersign" / "deploy" / "kubernetes")
        block = PAGE.split("## Kubernetes: sidecar")[1].split("```yaml\n")[1].split("```")[0]
        (tmp_path / "kustomization.yaml").write_text(block)
        (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(_application()))
        shutil.copytree(ROOT / "envoy" / "policies", tmp_path / "policies")
    built = tmp_path / "built.yaml"
    built.write_text(_built(folder))
    result = subprocess.run([VALIDATE, "--strict", built], capture_output=True, text=True, timeout=120, check=False)
    objects = {each["kind"]: each for each in yaml.safe_load_all(built.read_text())}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    names = [each["name"] for each in [*pod.get("initContainers", []), *pod["containers"]]]

    assert result.returncode == 0, result.stdout + result.stderr
    assert names == (["countersign", "envoy"] if kind == "sidecar" else ["countersign"])
    assert "registry.example/countersign:" in built.read_text() or kind != "sidecar"
    assert ("kubernetes://" in built.read_text()) == (kind == "cluster-deployment")


@pytest.mark.skipif(not VALIDATE.exists(), reason="`make manifests` installs kubectl")
@pytest.mark.parametrize("folder", ["istio", "envoy-gateway"])
def test_kustomize_builds_what_needs_other_schemas(folder: str) -> None:
    assert len([*yaml.safe_load_all(_built(MANIFESTS / folder))]) == len(
        _one(f"{folder}/kustomization.yaml")["resources"]
    )


def test_the_yaml_of_the_page_is_that_of_the_files() -> None:
    istio, gateway = (
        PAGE.split(f"## {name}\n")[1].split("```yaml\n")[1].split("```")[0] for name in ("Istio", "Envoy Gateway")
    )

    assert yaml.safe_load(istio) == _one("istio/values.yaml")
    assert yaml.safe_load(gateway)["extAuth"] == _one("envoy-gateway/securitypolicy.yaml")["spec"]["extAuth"]


def test_the_commands_of_the_page_name_files_namespaces_and_objects_that_are_there() -> None:
    commands = [shlex.split(line) for line in re.findall(r"^    ((?:kubectl|helm) .*)$", PAGE, re.MULTILINE)]
    folders = [words[-1] for words in commands if words[:3] == ["kubectl", "apply", "-k"]]
    labelled = {words[-1] for words in commands if words[1] == "label"}
    made = {
        words[words.index("create") + 1 :][-4 if "secret" in words else 1] for words in commands if "create" in words
    }
    (client,) = _one("deployment/networkpolicy.yaml")["spec"]["ingress"][0]["from"]
    ca = _one("envoy-gateway/backendtlspolicy.yaml")["spec"]["validation"]["caCertificateRefs"][0]["name"]

    assert folders == [f"deploy/kubernetes/{name}" for name in ("deployment", "istio", "envoy-gateway")]
    assert all((ROOT / folder / "kustomization.yaml").exists() for folder in folders)
    assert all((ROOT / words[-1]).exists() for words in commands if words[0] == "helm")
    assert labelled == {f"{key}={value}" for key, value in client["namespaceSelector"]["matchLabels"].items()}
    assert made == {_one("deployment/namespace.yaml")["metadata"]["name"], "countersign-tls", ca}


def test_the_serve_command_of_the_page_is_the_sidecars(tmp_path: Path) -> None:
    (command,) = re.findall(r"^    countersign serve (.*)$", PAGE, re.MULTILINE)
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    settings = serve._settings(layered(parser.parse_args(shlex.split(command)), {}))
    sidecar = _settings("sidecar/patch.yaml", tmp_path)

    assert (settings.listen, settings.policies) == (sidecar.listen, sidecar.policies)


def _application() -> dict[str, Any]:
    labels = {"app": "httpbin"}
    metadata = {"name": "httpbin", "labels": {"countersign.io/sidecar": "true"}}
    envoy = {"name": "envoy", "image": "envoyproxy/envoy:v1.40.0"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [envoy]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
