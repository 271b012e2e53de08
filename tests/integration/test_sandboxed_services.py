"""compose.yaml's services for real, but for the engine: commands, checks, users and mounts as compose has them."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from teacher_server.artifact import load_artifact
from tests.compose import read_compose
from tests.sandbox import Sandbox
from tests.serving import tiny_artifact

pytestmark = pytest.mark.system

DEMO = {"DEMO_ROADS": "150", "DEMO_TRIPS": "120", "DEMO_TEACHER_EPOCHS": "1", "DEMO_EPOCHS": "1"}
# Seconds of work for a small teacher: histories that share nothing.
DRAWN = random.Random(0)
HISTORIES = [[DRAWN.randrange(20) for _ in range(100)] for _ in range(1200)]
ASK = "teacher score 127.0.0.1:8001 /artifact/request.json > /tmp/answer && head -c 16 /tmp/answer"
LONG = {"histories": HISTORIES, "candidates": [[[4, 5]] * 90] * len(HISTORIES), "window": 8}


@pytest.fixture(scope="module", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts and namespaces of its own")


def seconds_computed(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_demo_fills_the_volumes_serves_and_trains(tmp_path: Path) -> None:
    with Sandbox(tmp_path, read_compose(DEMO)) as box:
        out, errors = box.up("demo-trainer").communicate(timeout=200)
        assert box.running["demo-trainer"].returncode == 0, errors
        assert "/runs/demo: test accuracy" in out
        teacher = box.running["demo-teacher"]
        teacher.send_signal(signal.SIGTERM)
        said, errors = teacher.communicate(timeout=box.services["demo-teacher"].stop_seconds)
        assert (teacher.returncode, said.splitlines()[-1]) == (0, "teacher: ready"), errors

        digest = load_artifact(tmp_path / "artifact").description.digest
        summary = json.loads((tmp_path / "runs/demo/summary.json").read_text())
        assert summary["teacher"]["digest"] == digest
        # A second time, nothing is made anew.
        made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[adr]*/**/*") if path.is_file()}
        status, out, errors = box.run("demo-fit")
        assert (status, out) == (0, ""), errors
        assert {path: path.stat().st_mtime_ns for path in made} == made


def test_without_an_artifact_one_line_says_what_to_do(tmp_path: Path) -> None:
    with Sandbox(tmp_path, read_compose()) as box:
        status, out, errors = box.run("teacher")
    assert status == 2
    assert out == ""
    (line,) = errors.splitlines()
    assert "/artifact holds no teacher: put one there with `teacher export" in line
    assert "docker compose --profile demo up" in line
    assert list((tmp_path / "artifact").iterdir()) == []


def test_any_user_serves_with_nothing_to_write_to_and_drains_in_time(tmp_path: Path) -> None:
    services = read_compose({"RUN_AS": "65534:54321"})
    with Sandbox(tmp_path, services) as box:
        tiny_artifact(box.volume("artifact", "65534:54321"), n_embd=128, n_layer=2)
        assert box.run("teacher-cpu", ["teacher", "health"])[0] == 1
        teacher = box.up("teacher-cpu")
        box.wait_until_healthy("teacher-cpu")
        about = Path(f"/proc/{teacher.pid}/status").read_text()
        assert "\nUid:\t65534\t65534\t65534\t65534\n" in about
        assert "\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n" in about
        assert "\nNoNewPrivs:\t1\n" in about
        attempts = "for path in / /src /artifact; do touch $path/x 2>&1 || true; done; touch /tmp/x; echo written"
        _, out, _ = box.run("teacher-cpu", ["sh", "-c", attempts])
        assert out.count("Read-only file system") == 3
        assert out.endswith("written\n")

        (tmp_path / "artifact/request.json").write_text(json.dumps(LONG))
        asking = box.start("teacher-cpu", ["sh", "-c", ASK])
        box.running["score"] = asking
        idle = seconds_computed(teacher.pid)
        deadline = time.monotonic() + 60
        while seconds_computed(teacher.pid) < idle + 0.3:
            assert asking.poll() is None, asking.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        teacher.send_signal(signal.SIGTERM)
        started = time.monotonic()
        status, said = box.run("teacher-cpu", ["teacher", "health"])[::2]
        assert (status, "draining" in said) == (1, True), said
        _, errors = teacher.communicate(timeout=services["teacher-cpu"].stop_seconds)
        print(f"drained in {time.monotonic() - started:.1f} s")
        assert teacher.returncode == 0, errors
        answer, errors = asking.communicate(timeout=30)
        assert asking.returncode == 0, errors
        assert answer == '{"log_probs": [['


def test_a_frozen_teacher_is_not_healthy(tmp_path: Path) -> None:
    with Sandbox(tmp_path, read_compose()) as box:
        tiny_artifact(box.volume("artifact", "10001:10001"))
        teacher = box.up("teacher-cpu")
        box.wait_until_healthy("teacher-cpu")
        teacher.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        status, _, errors = box.run("teacher-cpu", box.services["teacher-cpu"].healthcheck)
        assert (status, errors) == (1, "teacher: error: 0.0.0.0:8000: no answer: timed out\n")
        assert time.monotonic() - started < 60
