"""The Pods' own processes, restricted as the manifests say, with Secrets made by the document's commands.

No kubelet is needed: `tests.sandbox` gives each process its user, its read-only file system and its mounts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.compose import ROOT
from tests.integration.line import city_teacher
from tests.kubernetes.manifests import DEPLOY, Object, combined, one, pods, render
from tests.kubernetes.programs import as_service
from tests.sandbox import Sandbox
from trainer.data.prepare import prepare
from trainer.data.sample_city import write_sample_city

pytestmark = [pytest.mark.system, pytest.mark.slow]

USER = 10001
AS_A_CLUSTER_WOULD = 'kubectl() { command kubectl "$@" --dry-run=client --output=yaml && echo ---; }\n'


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    """The Pods' specs by the names under which the others reach them."""
    folder = tmp_path_factory.mktemp("manifests")
    cluster = render(combined(folder / "cpu", "cpu", "monitor"))
    jobs = {name: one(render(DEPLOY / "jobs" / name), "Job", name) for name in ("label", "train")}
    found = {"teacher-replicas": one(cluster, "Deployment", "teacher"), **jobs}
    return {name: pods(item)[0]["spec"] for name, item in found.items()}


@pytest.fixture(scope="module")
def box(specs: dict[str, Object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Claims filled, Secrets mounted, and nothing started."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts and namespaces of its own")
    folder = tmp_path_factory.mktemp("claims")
    write_sample_city(folder / "data", roads=150, trips=120, seed=5)
    city_teacher(folder / "artifact", prepare(folder / "data", folder / "cache").city)
    secrets = made_as_documented(folder / "made")
    for spec in specs.values():
        for volume in spec["volumes"]:
            for source in (volume.get("secret"), *volume.get("projected", {}).get("sources", ())):
                if source:
                    mount_secret(folder / volume["name"], source.get("secret", source), secrets)
    with Sandbox(folder, {name: as_service(name, spec) for name, spec in specs.items()}) as running:
        yield running


def made_as_documented(folder: Path) -> dict[str, dict[str, bytes]]:
    """Runs the document's first commands, but for a cluster; name → key → content of the Secrets."""
    folder.mkdir()
    commands = re.search(r"```sh\n(openssl.*?)```", (ROOT / "docs/kubernetes.md").read_text(), flags=re.S)
    assert commands
    environment = {"PATH": f"{sys.prefix}/bin:{os.defpath}", "HOME": str(folder)}
    script = f"set -eu\n{AS_A_CLUSTER_WOULD}{commands[1]}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item and item["kind"] == "Secret"]
    assert {item["metadata"]["namespace"] for item in objects} == {"hoser-distill"}
    return {
        item["metadata"]["name"]: {key: base64.b64decode(text) for key, text in item["data"].items()}
        for item in objects
    }


def mount_secret(folder: Path, source: Object, secrets: dict[str, dict[str, bytes]]) -> None:
    """As a kubelet does for a Pod with an fsGroup: root's files, which the group may read."""
    folder.mkdir(exist_ok=True)
    for item in source["items"]:
        file = folder / item["path"]
        file.write_bytes(secrets[source.get("secretName") or source["name"]][item["key"]])
        os.chown(file, 0, USER)
        file.chmod(0o440)


def test_probes_are_answered_labels_kept_and_ranks_train(box: Sandbox, specs: dict[str, Object]) -> None:
    teacher = box.running["teacher"] = box.start("teacher-replicas")
    assert teacher.stdout
    for said in ("teacher: listening ", "teacher: ready"):
        line = teacher.stdout.readline()
        assert line.startswith(said), teacher.communicate(timeout=10)[1]
    assert probed(box, specs) == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 200}

    assert asked(box, "https://teacher-replicas:8000/metrics") == 200  # by components/monitor
    assert asked(box, "https://teacher-replicas:8000/v2") == 401

    status, out, errors = box.run("label")
    assert status == 0, errors
    assert re.match(r"train: \d+ trips, .*\ntest: \d+ trips", out)
    box.services["train"].argv.append("--set=optimizer_config.max_epoch=1")
    status, out, errors = box.run("train")
    assert status == 0, errors
    summary = json.loads((box.folder / "runs/first/summary.json").read_text())
    assert summary["teacher_calls"]["calls"] == 0  # the labels were there
    origin = json.loads((box.folder / "runs/first/origin.json").read_text())
    assert origin["ranks"] == 2

    teacher.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert probed(box, specs) == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 503}


def probed(box: Sandbox, specs: dict[str, Object]) -> dict[str, int]:
    """What a kubelet is answered at each probe of the teacher's Pod."""
    (container,) = specs["teacher-replicas"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    found = {}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = container[name]["httpGet"]
        found[name] = asked(box, f"{get['scheme'].lower()}://teacher-replicas:{ports[get['port']]}{get['path']}")
    return found


def asked(box: Sandbox, url: str) -> int:
    """The HTTP status that a trainer's Pod is answered; the certificate must be the Secret's and bear the name."""
    words = ["curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"]
    status, out, errors = box.run("label", [*words, "--cacert", "/secrets/ca.crt", url])
    assert status == 0, errors
    return int(out)
