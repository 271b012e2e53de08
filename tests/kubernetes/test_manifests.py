"""`deploy/kubernetes` is valid, restricted, and about the program as it is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from teacher_server.serve import CLOSING_SECONDS
from tests.compose import ROOT, read_compose
from tests.kubernetes.manifests import (
    DEPLOY,
    Object,
    check_references,
    check_schema,
    checked,
    combined,
    containers,
    one,
    pods,
    secrets_used,
    select,
)
from tests.kubernetes.programs import argv_of, check_command, environment_of, image_of, started_by

APPLIED = sorted(
    file.parent for file in DEPLOY.rglob("kustomization.yaml") if "kind: Component" not in file.read_text()
)
JOBS = ("train", "train-gpu", "label", "label-ray", "fill")
DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text()


@pytest.fixture(scope="module", params=[("cpu", "hpa"), ("gpu", "keda")], ids="-".join)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """All objects of a cluster: teachers on one kind of device that scale in one way, and all Jobs."""
    device, scaling = request.param
    folder = combined(tmp_path_factory.mktemp("teachers") / "mine", device, "monitor", scaling)
    return checked(folder) + [each for name in JOBS for each in checked(DEPLOY / "jobs" / name)]


@pytest.mark.parametrize("folder", APPLIED, ids=lambda folder: str(folder.relative_to(DEPLOY)))
def test_what_can_be_applied_is_valid(folder: Path) -> None:
    assert checked(folder)


def test_every_file_is_part_of_something() -> None:
    named = {file.name for file in DEPLOY.rglob("*.yaml")} - {"kustomization.yaml", "prometheus-adapter.yaml"}
    text = "\n".join(file.read_text() for file in DEPLOY.rglob("kustomization.yaml"))
    assert {name for name in named if name not in text} == set()


def test_names_lead_somewhere(cluster: list[Object]) -> None:
    check_references(cluster)
    assert {item["metadata"].get("namespace", "hoser-distill") for item in cluster} == {"hoser-distill"}


def test_images_are_those_of_compose(cluster: list[Object]) -> None:
    ours = {service.plain["image"] for service in read_compose().values()}
    with_ray = "hoser-distill/teacher:cuda-ray"
    assert {container["image"] for item in cluster for container in containers(item)} <= {*ours, with_ray}
    assert f"--build-arg EXTRAS=server,kuberay -t {with_ray} ." in DOCUMENT


def test_every_command_is_one_that_the_program_takes(cluster: list[Object], tmp_path: Path) -> None:
    for item in cluster:
        for container in () if item["kind"] == "RayJob" else containers(item):
            if argv_of(container)[0] != "sleep":
                assert check_command(started_by(container, tmp_path), environment_of(container))


def test_a_ray_cluster_is_of_our_version_and_labels_as_the_job_does(cluster: list[Object], tmp_path: Path) -> None:
    ray = one(cluster, "RayJob", "label")["spec"]
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert pinned
    assert ray["rayClusterSpec"]["rayVersion"] == pinned[1]
    by_ray = check_command(shlex.split(ray["entrypoint"]), {})
    (container,) = containers(one(cluster, "Job", "label"))
    plain = check_command(started_by(container, tmp_path), environment_of(container))
    assert {name for name in plain if plain[name] != by_ray[name]} == {"engine", "teacher", "in_flight"}
    assert (by_ray["engine"], by_ray["teacher"]) == ("ray", "local:/artifact")
    head, worker = (made["spec"]["containers"][0] for made in pods(one(cluster, "RayJob", "label")))
    assert {"/data", "/runs", "/artifact"} <= {mount["mountPath"] for mount in head["volumeMounts"]}
    assert "/artifact" in {mount["mountPath"] for mount in worker["volumeMounts"]}
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_pod_is_restricted(cluster: list[Object]) -> None:
    """The Pod Security Standard `restricted`, and more."""
    specs = [made["spec"] for item in cluster for made in pods(item)]
    assert len(specs) == 7
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            own = f"{security['runAsUser']}:{security['runAsGroup']}"
            assert (own, security["fsGroup"]) == (image_of(container).user, security["runAsGroup"])
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
        for volume in spec["volumes"]:
            assert volume.keys() & {"persistentVolumeClaim", "emptyDir", "secret", "projected"}
            for source in ("secret", "projected"):
                assert volume.get(source, {"defaultMode": 0o440})["defaultMode"] == 0o440
    namespace = one(cluster, "Namespace", "hoser-distill")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_ports_are_those_of_the_server(cluster: list[Object]) -> None:
    (teacher,) = containers(one(cluster, "Deployment", "teacher"))
    settings = check_command(argv_of(teacher), environment_of(teacher))
    ports = {port["name"]: port["containerPort"] for port in teacher["ports"]}
    assert settings["grpc_address"] == [f"0.0.0.0:{ports['grpc']}"]
    assert settings["http_address"] == f"0.0.0.0:{ports['http']}"
    for service in select(cluster, "Service"):
        assert all(port["port"] == ports[port["name"]] for port in service["spec"]["ports"])
    policies = {item["metadata"]["name"]: item["spec"] for item in select(cluster, "NetworkPolicy")}
    assert policies["teacher"]["ingress"][0]["ports"] == [{"port": ports["grpc"]}]
    assert policies["trainer"]["egress"][0]["ports"] == [{"port": ports["grpc"]}]
    assert policies["teacher-metrics"]["ingress"][0]["ports"] == [{"port": ports["http"]}]
    assert "egress" not in policies["teacher"]
    assert "ingress" not in policies["trainer"]


def test_the_trainer_asks_every_replica(cluster: list[Object], tmp_path: Path) -> None:
    headless = one(cluster, "Service", "teacher-replicas")
    assert headless["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in one(cluster, "Service", "teacher")["spec"]
    address = f"grpcs://{headless['metadata']['name']}:{headless['spec']['ports'][0]['port']}"
    for name in ("train", "label"):
        for job in select(cluster, "Job", name):
            (container,) = containers(job)
            assert check_command(started_by(container, tmp_path), environment_of(container))["teacher"] == address


def test_a_teacher_may_drain(cluster: list[Object]) -> None:
    spec = one(cluster, "Deployment", "teacher")["spec"]["template"]["spec"]
    (teacher,) = spec["containers"]
    settings = check_command(argv_of(teacher), environment_of(teacher))
    probe = teacher["readinessProbe"]
    assert settings["drain_delay"] > probe["periodSeconds"] * probe["failureThreshold"]
    needed = settings["drain_delay"] + settings["drain_timeout"] + 2 * CLOSING_SECONDS
    assert spec["terminationGracePeriodSeconds"] >= needed


def test_a_device_is_asked_for_where_it_is_insisted_on() -> None:
    for overlay, device in (("cpu", "cpu"), ("gpu", "cuda")):
        (teacher,) = containers(one(checked(DEPLOY / "overlays" / overlay), "Deployment", "teacher"))
        assert check_command(argv_of(teacher), environment_of(teacher))["device"] == device
        assert teacher["resources"]["limits"].get("nvidia.com/gpu") == ("1" if device == "cuda" else None)


def test_one_teacher_may_be_missing_and_autoscalers_agree(tmp_path: Path) -> None:
    plain = checked(DEPLOY / "overlays/cpu")
    assert one(plain, "PodDisruptionBudget", "teacher")["spec"]["maxUnavailable"] == 1
    replicas = one(plain, "Deployment", "teacher")["spec"]["replicas"]
    found = {}
    for name, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        objects = checked(combined(tmp_path / name, "cpu", name))
        assert "replicas" not in one(objects, "Deployment", "teacher")["spec"]
        found[name] = one(objects, kind, "teacher")["spec"]
    hpa, keda = found["hpa"], found["keda"]
    assert replicas == hpa["minReplicas"] == keda["minReplicaCount"]
    assert hpa["maxReplicas"] == keda["maxReplicaCount"]
    assert hpa["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (trigger,) = keda["triggers"]
    target = hpa["metrics"][0]["pods"]["target"]["averageValue"]
    assert float(trigger["metadata"]["threshold"]) * 1000 == float(target.removesuffix("m"))


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_was_begun_goes_on(begun: bool, tmp_path: Path) -> None:
    (container,) = containers(one(checked(DEPLOY / "jobs/train"), "Job", "train"))
    container["args"].append("--set=distill.window=4")
    if begun:
        (tmp_path / "first").mkdir()
        (tmp_path / "first" / "origin.json").touch()
    settings = check_command(started_by(container, tmp_path, runs=tmp_path), environment_of(container))
    assert (settings["resume"], list(settings["set_"])) == (begun, ["distill.window=4"])


def test_the_document_shows_what_is_there() -> None:
    shown = re.findall(r"kubectl apply -k (\S+)", DOCUMENT + "".join(f.read_text() for f in DEPLOY.rglob("*.yaml")))
    assert len(shown) > 8
    assert all((ROOT / path / "kustomization.yaml").exists() for path in shown)
    listed = set(re.findall(r"`((?:overlays|jobs|components)/[a-z-]+)`", DOCUMENT))
    assert listed == {str(f.parent.relative_to(DEPLOY)) for f in DEPLOY.glob("*/*/kustomization.yaml")}


def test_the_document_s_overlays_are_valid(tmp_path: Path, cluster: list[Object]) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy" / "kubernetes")
    examples: list[Any] = re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.S)
    assert len(examples) == 2
    objects = []
    for place, text in enumerate(examples):
        folder = tmp_path / f"mine-{place}"
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(text)
        objects += checked(folder)
    (teacher,) = containers(one(objects, "Deployment", "teacher"))
    assert teacher["image"] == "registry.example/hoser-distill/teacher:cuda"
    assert check_command(argv_of(teacher), environment_of(teacher))["batch_tokens"] == 32768
    (trainer,) = containers(one(objects, "Job", "train-seed-2"))
    settings = check_command(started_by(trainer, tmp_path), environment_of(trainer))
    assert (settings["seed"], settings["out"]) == (2, Path("/runs/seed-2"))
    check_references(objects)


def test_the_document_s_rule_is_the_alerts_file(cluster: list[Object]) -> None:
    (command,) = re.findall(r"```sh\n(\{\n.*?)```", DOCUMENT, flags=re.S)
    script = f"set -eu\nkubectl() {{ cat; }}\n{command}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    rule = yaml.safe_load(done.stdout)
    check_schema(rule)
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/observe/prometheus/alerts.yml").read_text())
    monitor = one(cluster, "ServiceMonitor", "teacher")["metadata"]
    assert (rule["metadata"]["name"], rule["metadata"]["namespace"]) == (monitor["name"], monitor["namespace"])


def test_the_adapter_s_file_is_no_object() -> None:
    """It is Helm's values; what it computes is measured in test_scaling.py."""
    values = yaml.safe_load((DEPLOY / "components/hpa/prometheus-adapter.yaml").read_text())
    assert values.keys() == {"rules"}


def test_secrets_are_few(cluster: list[Object]) -> None:
    assert set(secrets_used(cluster)) == {
        ("teacher-tls", "tls.crt"),
        ("teacher-tls", "tls.key"),
        ("teacher-tls", "ca.crt"),
        ("teacher-tokens", "tokens"),
        ("trainer-token", "token"),
    }
