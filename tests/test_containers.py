"""Dockerfiles and compose.yaml: what they promise, and `teacher-cpu` as a process with its paths and ports moved.

tests/integration/test_sandboxed_services.py runs the services unmoved, restricted as compose.yaml says.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from teacher_server.__main__ import app
from teacher_server.serve import CLOSING_SECONDS
from tests.compose import ROOT, Service, read_compose, read_image
from tests.serving import finished, tiny_artifact

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SERVICES = read_compose()
SERVE = {p.name: p for p in typer.main.get_command(app).commands["serve"].params}  # type: ignore[attr-defined]
TEACHERS = [service for service in SERVICES.values() if service.argv == ["teacher", "serve"]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_is_small_and_runs_as_nobody_special(file: Path) -> None:
    image = read_image(file, {})
    assert len(image.stages) == 2
    (copied,) = image.all("COPY")
    assert copied.startswith("--from=build ")
    assert not any(re.search(r"\b(pip|apt-get|gcc)\b", command) for command in image.all("RUN"))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user)  # Kubernetes cannot tell that a name is not root
    assert image.stop_signal == "SIGTERM"
    assert any("org.opencontainers.image.title" in label for label in image.all("LABEL"))
    assert image.environment["HOME"] == "/tmp"


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [value.split()[:-1] for name, value in read_image(file, {}).stages[0] if name == "COPY"]
    copied = {source for sources in copies for source in sources}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_no_image_or_index_is_named_with_a_host() -> None:
    for file in (*DOCKERFILES, ROOT / "compose.yaml"):
        text = file.read_text()
        assert "://" not in re.sub(r"grpc://[a-z-]+:8001", "", text)
        assert re.findall(r"^(?:FROM|\s+image:) *(\S+)", text, flags=re.M)
        assert not re.findall(r"^(?:FROM|\s+image:) *\S*\.\S*/", text, flags=re.M)


def test_the_variant_is_the_device_that_is_insisted_on() -> None:
    assert {SERVICES[name].environment["TEACHER_DEVICE"] for name in ("teacher-cpu", "demo-teacher")} == {"cpu"}
    assert SERVICES["teacher"].environment["TEACHER_DEVICE"] == "cuda"
    assert read_image(ROOT / "docker/teacher.Dockerfile", {}).environment["TEACHER_DEVICE"] == "cuda"


def test_every_teacher_variable_is_one_of_serve() -> None:
    known = {parameter.envvar for parameter in SERVE.values()}
    for service in TEACHERS:
        assert {name for name in service.environment if name.startswith("TEACHER_")} <= known
    assert len(TEACHERS) == 3


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_is_restricted(service: Service) -> None:
    plain = service.plain
    assert plain["read_only"] is True
    assert plain["cap_drop"] == ["ALL"]
    assert plain["security_opt"] == ["no-new-privileges:true"]
    assert plain["init"] is True
    assert service.user == service.image.user
    assert all(port.startswith("127.0.0.1:") for port in service.ports)
    for mount in service.mounts:
        if mount.source.startswith("./"):
            assert (ROOT / mount.source).is_dir()
            assert mount.read_only
            continue
        # Compose fails on volumes that it was not told of; those that are read are filled by the demo alone.
        assert f"\n  {mount.source}:\n" in (ROOT / "compose.yaml").read_text()
        assert mount.read_only == (mount.target in ("/data", "/artifact") and service.name != "demo-fit")


@pytest.mark.parametrize("service", TEACHERS, ids=lambda service: service.name)
def test_a_teacher_is_checked_and_may_drain(service: Service) -> None:
    assert service.healthcheck == ["teacher", "health"]
    assert service.image.healthcheck.endswith('CMD ["teacher", "health"]')
    drain: Any = SERVE["drain_delay"].default + SERVE["drain_timeout"].default  # type: ignore[operator]
    assert service.stop_seconds >= drain + 2 * CLOSING_SECONDS
    assert service.plain["restart"] == "no"
    assert read_compose({"RESTART": "unless-stopped"})[service.name].plain["restart"] == "unless-stopped"


def test_a_service_depends_on_what_its_profile_starts() -> None:
    """Or compose would refuse to start it."""
    for service in SERVICES.values():
        for other, condition in service.depends_on.items():
            assert SERVICES[other].plain["profiles"] == service.plain["profiles"]
            if condition == "service_healthy":
                assert SERVICES[other].healthcheck


def test_gpus_are_reserved_where_they_are_used() -> None:
    for service in SERVICES.values():
        reserved = "deploy" in service.plain
        assert reserved == (service.plain["profiles"] == ["gpu"])
        if reserved:
            (device,) = service.plain["deploy"]["resources"]["reservations"]["devices"]
            assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_documents_show_what_is_there() -> None:
    documents = [ROOT / "README.md", ROOT / "compose.yaml", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(file.read_text() for file in documents)
    option = r"(?: --[a-z-]+(?: [a-z-]+=\d+| \d+)?)*"
    shown = re.findall(rf"docker compose(?: --profile (\S+))? (?:up|build|run|exec){option}((?: [a-z-]+)*)", text)
    assert len(shown) > 8
    profiles = {profile for service in SERVICES.values() for profile in service.plain["profiles"]}
    assert {profile for profile, _ in shown} <= {"", *profiles}
    assert {words.split()[0] for _, words in shown if words.split()} <= SERVICES.keys()
    variables = set(re.findall(r"\$\{(\w+):-", (ROOT / "compose.yaml").read_text()))
    told = re.findall(r"`([A-Z_]+)`", (ROOT / "docs/containers.md").read_text().partition("## Variables")[2])
    assert variables <= set(told)


def test_the_secrets_that_the_document_shows_are_settings_of_serve() -> None:
    text = (ROOT / "docs/containers.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    override = yaml.safe_load(text)
    teacher = override["services"]["teacher"]
    assert teacher["environment"].keys() <= {parameter.envvar for parameter in SERVE.values()}
    assert {Path(path).name for path in teacher["environment"].values()} == set(teacher["secrets"])
    assert override["secrets"].keys() == set(teacher["secrets"])


def moved(service: Service, artifact: Path, ports: dict[int, int]) -> dict[str, str]:
    """The service's environment for a process of this machine: its volume in a folder, its ports free ones of ours."""
    known = dict(service.environment)
    for name, value in known.items():
        value = re.sub(r"^/artifact\b", str(artifact), value)
        known[name] = re.sub(r"^0\.0\.0\.0:(\d+)$", lambda found: f"127.0.0.1:{ports[int(found[1])]}", value)
    programs = f"{sys.prefix}/bin:{os.defpath}"
    return known | {"PATH": programs, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("name", ["teacher", "teacher-cpu"])
def test_without_an_artifact_one_line_says_what_to_do(name: str, tmp_path: Path) -> None:
    environment = moved(SERVICES[name], tmp_path, {8000: free_port(), 8001: free_port()})
    done = subprocess.run(SERVICES[name].argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"teacher: error: {tmp_path} holds no teacher: put one there with `teacher export")
    assert "docker compose --profile demo up" in line


@pytest.mark.slow
def test_teacher_cpu_becomes_healthy_and_stops(tmp_path: Path) -> None:
    service, ports = SERVICES["teacher-cpu"], {8000: free_port(), 8001: free_port()}
    tiny_artifact(tmp_path / "artifact")
    environment = moved(service, tmp_path / "artifact", ports)

    def healthy() -> bool:
        assert service.healthcheck
        check = subprocess.run(service.healthcheck, env=environment, capture_output=True, timeout=60, check=False)
        return check.returncode == 0

    assert not healthy()
    process = subprocess.Popen(service.argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + service.start_seconds
        while not healthy():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
        with socket.create_connection(("127.0.0.1", ports[8001]), timeout=5):
            pass
        process.terminate()
        finished(process, 0)
        assert not healthy()
    finally:
        process.kill()
        if process.stdout and not process.stdout.closed:
            process.communicate()
