"""Runs that are watched: W&B and TensorBoard beside `metrics.jsonl`, through kills, resumes and failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.integration.line import Line
from tests.integration.runs import assert_equal, begin, command, epochs, steps_logged, train, wait_for_step
from tests.integration.wandb_files import sessions
from tests.serving import RunningTeacher

WATCHED = ("--set", "wandb.enable=true", "--set", "wandb.mode=offline", "--set", "tensorboard.enable=true")
RESEARCH = {"loss_next_step", "loss_time_pred", "loss", "loss_kl", "epoch"}
RESEARCH_PERF = {
    *(f"perf/{part}_ms" for part in ("data_wait", "data_transfer", "hoser_forward", "distill_kl_(teacher)")),
    *(f"perf/{part}_ms" for part in ("backward_pass", "optimizer_step", "total_step_time")),
    "perf/iter_per_sec",
}
RESEARCH_EPOCH = {"val/next_step_acc", "val/time_pred_mape"}


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def watched(line: Line, served: RunningTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("watched") / "run"
    named = ("--set", "wandb.project=routes", "--set", "wandb.run_name=first", "--set", "wandb.tags=[a, b]")
    train(line, out, "--teacher", f"grpc://{served.grpc}", *epochs(2), *WATCHED, *named)
    return out


def test_wandb_gets_the_whole_config_and_the_research_names(watched: Path, served: RunningTeacher) -> None:
    (session,) = sessions(watched)
    assert (session.project, session.name, session.tags) == ("routes", "first", ["a", "b"])
    assert session.config["optimizer_config"]["batch_size"] == 16
    assert session.config["distill"]["lambda"] == 0.1
    assert session.config["run"]["teacher"] == served.digest
    assert session.exit_code == 0
    names = {name for row in session.rows for name in row}
    assert names >= RESEARCH | RESEARCH_PERF | RESEARCH_EPOCH | {"lr"}
    in_file = {step: values for step, values in ((line.pop("step"), line) for line in logged(watched)) if step}
    assert [row["_step"] for row in session.rows] == sorted(in_file)
    for row in session.rows:
        wanted = {name: value for name, value in in_file[row["_step"]].items() if value is not None}
        assert {name: row[name] for name in wanted} == pytest.approx(wanted)


def test_tensorboard_gets_the_same_under_its_own_name_for_the_rate(watched: Path) -> None:
    shown = scalars(watched)
    assert shown.keys() >= RESEARCH | RESEARCH_PERF | RESEARCH_EPOCH | {"learning_rate"}
    assert "lr" not in shown
    losses = [(line["step"], line["loss"]) for line in logged(watched) if "loss" in line]
    assert shown["loss"] == [(step, pytest.approx(loss)) for step, loss in losses]


def test_the_summary_tells_where_time_went_and_what_the_teacher_was_asked(watched: Path) -> None:
    summary = json.loads((watched / "summary.json").read_text())
    profile = summary["profile"]
    assert sum(part["share"] for part in profile["parts"].values()) == pytest.approx(1, abs=0.01)
    for part in ("data_wait", "data_transfer", "hoser_forward", "backward_pass", "optimizer_step"):
        assert profile["parts"][part]["seconds"] > 0, part
    assert profile["parts"]["other"]["share"] < 0.5
    assert profile["teacher_wait_share"] == profile["parts"]["distill_kl_(teacher)"]["share"]
    assert profile["samples_per_s"] > 1
    calls = summary["teacher_calls"]
    assert calls["calls"] >= summary["optimiser_steps"] / 2, "the first of two epochs asks in every step"
    assert calls["retries"] == calls["failovers"] == 0
    (endpoint,) = calls["endpoints"].values()
    assert endpoint["calls"] == calls["calls"]
    assert summary["kl_missed"] == summary["bad_steps"] == 0


@pytest.mark.slow
def test_watching_changes_no_bit(line: Line, plain_run: Path, tmp_path: Path) -> None:
    train(line, tmp_path / "run", "--teacher", "none", *epochs(2), *WATCHED)
    assert_equal(plain_run, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_goes_on_as_the_same_run(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """The resumed run is told nothing of trackers: its own settings hold. Nothing is shown twice."""
    out = tmp_path / "run"
    process = begin(line, out, "--teacher", "none", *epochs(2), *WATCHED)
    wait_for_step(out, 7, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    train(line, out, "--teacher", "none", "--resume")
    assert_equal(plain_run, out)
    first, second = sessions(out)
    saved = torch.load(out / "checkpoints" / "last.pt", weights_only=True)["progress"]
    assert first.run_id == second.run_id == saved["wandb_id"]
    steps = [step for step, _ in scalars(out)["loss"]]
    assert steps == sorted(set(steps_logged(plain_run))), "a step is missing or doubled"
    assert [row["_step"] for row in second.rows] == sorted(set(steps) - set(range(second.rows[0]["_step"])))


@pytest.mark.slow
def test_the_trackers_of_a_run_may_change(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = begin(line, out, "--teacher", "none", *epochs(2))
    wait_for_step(out, 3, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    train(line, out, "--teacher", "none", "--resume", *WATCHED)
    (session,) = sessions(out)
    assert session.rows
    assert scalars(out)["loss"]


@pytest.mark.slow
def test_without_a_network_figures_are_kept_for_later(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """Nobody listens at the address; the run must neither stop nor wait long."""
    out, flags = tmp_path / "run", ("--teacher", "none", *epochs(2), "--set", "wandb.enable=true")
    environment = os.environ | {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "x" * 40}
    begun = time.monotonic()
    done = subprocess.run(
        command(line, out, *flags), capture_output=True, text=True, timeout=200, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 100
    (warning,) = (text for text in done.stderr.splitlines() if "W&B" in text or "wandb" in text)
    assert f"figures are kept in {out / 'wandb'} for `wandb sync`" in warning
    assert_equal(plain_run, out)
    assert [row["_step"] for row in sessions(out)[-1].rows] == sorted(set(steps_logged(out)))


@pytest.mark.slow
def test_a_wandb_that_dies_does_not_stop_training(line: Line, plain_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = begin(line, out, "--teacher", "none", *epochs(2), *WATCHED)
    wait_for_step(out, 3, process)
    os.kill(service_of(process.pid), signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert errors.count("trainer: warning: W&B failed") == 1, errors
    assert "Traceback" not in errors
    assert_equal(plain_run, out)
    assert steps_logged(out) == steps_logged(plain_run)


def service_of(pid: int) -> int:
    """W&B's own process beside a trainer."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"wandb-core" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("no wandb-core")
