"""What is wrong with the manifests is found: each test spoils one thing in a copy of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.kubernetes.manifests import (
    DEPLOY,
    Invalid,
    Object,
    check_references,
    check_schema,
    checked,
    combined,
    containers,
)
from tests.kubernetes.programs import check_command, environment_of, started_by

GPU, HPA = "overlays/gpu/kustomization.yaml", "components/hpa/kustomization.yaml"
BUDGET, TEACHER, SERVICE, POLICY = "PodDisruptionBudget", "Deployment", "Service", "NetworkPolicy"
# (kind of the object, what it says, what it should not say, how the message begins to tell)
IN_AN_OBJECT = [
    pytest.param(BUDGET, "kind: PodDisruptionBudget", "kind: PodDisruption", "find schema", id="kind"),
    pytest.param(BUDGET, "policy/v1", "policy/v1beta1", "find schema", id="version"),
    pytest.param(TEACHER, "failureThreshold: 3", "failureTreshold: 3", "failureTreshold", id="field"),
    pytest.param(TEACHER, "containerPort: 8001", "containerPort: grpc", "not of type 'integer'", id="type"),
    pytest.param(
        "Job", "- status: 'True'\n        type", "- type", "'status' is a required property", id="missing-field"
    ),
    pytest.param("ServiceMonitor", "serverName:", "servername:", "'serverName' is a required", id="field-of-a-monitor"),
    pytest.param("ServiceMonitor", "kind: ServiceMonitor", "kind: Monitor", "find schema", id="custom-kind"),
    pytest.param("ScaledObject", "threshold: '0.5'", "threshold: 0.5", "not of type 'string'", id="number-for-keda"),
    pytest.param("ScaledObject", "minReplicaCount", "minReplicas", "'minReplicas' was", id="field-of-keda"),
    pytest.param("RayJob", "ttlSeconds", "ttlSecond", "'ttlSecondAfterFinished' was", id="field-of-ray"),
    pytest.param("RayJob", "readinessProbe:", "readynessProbe:", "'readynessProbe' was", id="field-of-ray-s-pods"),
    pytest.param(SERVICE, "selector:\n    app", "selector:\n    ap", "no Pod has", id="selector"),
    pytest.param(POLICY, "name: trainer", "name: trainers", "no Pod has", id="peer"),
    pytest.param(SERVICE, "targetPort: http", "targetPort: https", "no port https", id="port-of-a-service"),
    pytest.param(TEACHER, "port: http", "port: web", "no port web", id="port-of-a-probe"),
    pytest.param(TEACHER, "claimName: artifact", "claimName: artefact", "no PersistentVolumeClaim", id="claim"),
    pytest.param(TEACHER, "name: tokens\n        secret", "name: keys\n        secret", "mounts differ", id="volume"),
    pytest.param("ScaledObject", "Ref:\n    name: teacher", "Ref:\n    name: t", "no Deployment t", id="scaled"),
    pytest.param(SERVICE, "name: teacher-replicas", "name: teacher", "each would be scraped", id="scraped-twice"),
    pytest.param(TEACHER, "--drain-delay=40", "--drain-deley=15", "No such option", id="flag"),
    pytest.param(TEACHER, "--drain-delay=40", "--drain-delay=soon", "valid number", id="value-of-a-flag"),
    pytest.param(TEACHER, "- serve\n", "- server\n", "no command teacher server", id="command"),
    pytest.param("Job", "--in-flight=16", "--in-flights=16", "No such option", id="flag-of-label"),
    pytest.param("Job", "--data=/data --out", "--dat=/data --out", "No such option", id="flag-of-train"),
    pytest.param("Job", "--standalone", "--stand-alone", "torchrun does not take", id="flag-of-torchrun"),
    pytest.param("Job", "-m trainer", "trainer", "not told to run a module", id="module"),
    pytest.param("Job", "$RANKS", "$RANK_COUNT", "the container's script fails", id="variable"),
]
IN_A_KUSTOMIZATION = [
    pytest.param(GPU, "name: teacher}", "name: teachers}", "no target", id="patch"),
    pytest.param(GPU, "kind: Deployment", "kind: StatefulSet", "no target", id="kind-of-a-patch"),
    pytest.param(HPA, "name: teacher}", "name: teachers}", "no target", id="patch-of-a-component"),
    pytest.param(GPU, "hoser-distill/teacher", "hoser-distill/taecher", "no container has the image", id="image"),
    pytest.param(GPU, "path: gpu.yaml", "path: cuda.yaml", "cuda.yaml", id="file"),
    pytest.param("overlays/gpu/gpu.yaml", "strategy:", "strategie:", "strategie", id="field-of-a-patch"),
]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    folder = combined(tmp_path_factory.mktemp("all") / "mine", "gpu", "monitor", "keda")
    return (
        checked(folder)
        + checked(DEPLOY / "jobs/train")
        + checked(DEPLOY / "jobs/label")
        + checked(DEPLOY / "jobs/label-ray")
    )


def check(objects: list[Object], spoilt: list[Object], folder: Path) -> None:
    """What concerns all objects, and what concerns each of some."""
    for item in spoilt:
        check_schema(item)
    check_references(objects)
    for container in (each for item in spoilt if item["kind"] != "RayJob" for each in containers(item)):
        check_command(started_by(container, folder), environment_of(container))


def test_what_is_there_passes(objects: list[Object], tmp_path: Path) -> None:
    check(objects, objects, tmp_path)


@pytest.mark.parametrize(("kind", "old", "new", "message"), IN_AN_OBJECT)
def test_a_mistake_in_an_object_is_found(
    objects: list[Object], kind: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    changed, spoilt = [], []
    for item in objects:
        text = yaml.safe_dump(item, width=1000)
        changed.append(item)
        if item["kind"] == kind and old in text:
            changed[-1] = yaml.safe_load(text.replace(old, new))
            spoilt.append(changed[-1])
    assert spoilt, f"no {kind} says {old!r}"
    with pytest.raises(Invalid, match=message):
        check(changed, spoilt, tmp_path)


@pytest.mark.parametrize(("file", "old", "new", "message"), IN_A_KUSTOMIZATION)
def test_a_mistake_in_a_kustomization_is_found(file: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    deploy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, deploy)
    text = (deploy / file).read_text()
    assert old in text
    (deploy / file).write_text(text.replace(old, new))
    with pytest.raises(Invalid, match=message):
        checked(combined(tmp_path / "mine", "gpu", "hpa", deploy=deploy))
