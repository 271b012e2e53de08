"""The whole line, as `make demo` runs it, with less of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.demo import ON_POLICY, STUDENTS

pytestmark = pytest.mark.slow


def demo(out: Path, *flags: str | Path) -> str:
    less = ("--teacher-epochs", "1", "--epochs", "1", "--count", "5")
    command = [sys.executable, "-m", "trainer", "demo", "--out", str(out), *less, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout


def check(out: Path, said: str, names: tuple[str, ...] = STUDENTS) -> None:
    students = json.loads((out / "summary.json").read_text())["students"]
    assert tuple(students) == names
    for row in students.values():
        assert 0.5 < row["choice_accuracy"] < row["next_step_accuracy"] < 1
        assert 0 < row["destination_reached_rate"] <= 1
        assert 0 < row["Distance_JSD"] < 0.6932
        assert row["steps_skipped"] == 0
        assert row["teacher_perplexity_generated"] > 1
        assert 0 <= row["anomaly_rate_generated"] <= 1
    assert students["none"]["kl"] is None
    assert f"To look at: {out / 'report.html'}" in said
    report = (out / "report.html").read_text()
    assert ", ".join(names) in report
    teacher = json.loads((out / "teacher-evaluation.json").read_text())["digest"]
    assert f"Verdict of teacher {teacher[:16]}" in report
    assert f"Outlier benchmark of teacher {teacher[:16]}" in report

    assert students["uniform"]["kl"] > 0
    assert students["distilled"]["kl"] > 0
    assert students["distilled"]["steps_scored"] == students["uniform"]["steps_scored"] > 0


@pytest.mark.timeout(1000)
def test_demo_on_a_sample_city(tmp_path: Path) -> None:
    said = demo(tmp_path / "demo", "--on-policy")
    check(tmp_path / "demo", said, (*STUDENTS, ON_POLICY))
    assert "Four students of the same seed" in said
    own = json.loads((tmp_path / "demo" / ON_POLICY / "summary.json").read_text())["own_routes"]
    assert own["own_trips"] > 0
    stranger = tmp_path / "mine"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("precious")
    command = [sys.executable, "-m", "trainer", "demo", "--out", str(stranger)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "holds something that is no demo" in refused.stderr
    assert (stranger / "thesis.txt").read_text() == "precious"


@pytest.mark.timeout(1000)
def test_demo_on_real_data(tmp_path: Path, core_data: Path) -> None:
    said = demo(tmp_path / "demo", "--data", core_data)
    check(tmp_path / "demo", said)
    assert "Three students of the same seed" in said
