"""Whole runs of the trainer's command, with real servers, real kills and real resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.line import Line, city_teacher
from tests.integration.runs import (
    assert_agree,
    assert_close,
    assert_equal,
    begin,
    command,
    epochs,
    steps_logged,
    train,
    wait_for_step,
    weights,
)
from tests.serving import RunningTeacher, serve, start, tiny_artifact, wait_until_ready

# The trainer, but that SIGTERM comes when it has begun to measure for the n-th time.
SIGNALLED = """
import os, signal, sys
from trainer import step, train
from trainer.__main__ import main
def measure(*what):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return step.measure(*what)
left = int(sys.argv.pop(1))
train.measure = measure
main()
"""


def test_a_run_leaves_what_it_promises(line: Line, taught_run: Path, served: RunningTeacher) -> None:
    summary = json.loads((taught_run / "summary.json").read_text())
    assert 0.3 < summary["next_step_accuracy"] <= 1
    assert 0 < summary["choice_accuracy"] <= summary["next_step_accuracy"]
    for name in ("mape_log1p", "mape_seconds", "kl"):
        assert summary[name] > 0
    trips = line.city.trips["test"]
    assert summary["steps_scored"] == summary["test_steps"] == len(trips.roads) - len(trips)
    assert summary["steps_skipped"] == 0
    assert summary["teacher"]["digest"] == served.digest
    assert summary["data_fingerprint"] == line.city.meta.fingerprint
    assert summary["teacher_calls"]["calls"] > 0
    lines = [json.loads(text) for text in (taught_run / "metrics.jsonl").read_text().splitlines()]
    logged = {name for values in lines for name in values}
    research = {"loss_next_step", "loss_time_pred", "loss", "loss_kl", "lr", "epoch", "val/next_step_acc"}
    assert research <= logged
    assert {"val/time_pred_mape", "perf/distill_kl_(teacher)_ms", "perf/total_step_time_ms"} <= logged
    losses = [values["train/loss"] for values in lines if "train/loss" in values]
    assert losses[-1] < losses[0]
    best = load_file(taught_run / "checkpoints" / "best.safetensors")
    assert "navigator.v_proj.weight" in best


def test_lambda_zero_is_plain_hoser_bit_for_bit(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """And asks nobody: the address has no server behind it."""
    address = ("--teacher", "grpc://127.0.0.1:9", "--set", "distill.lambda=0")
    train(line, tmp_path / "zero", *address, *epochs(2))
    assert_equal(plain_run, tmp_path / "zero")


def test_the_teacher_changes_the_student(plain_run: Path, taught_run: Path) -> None:
    name = "navigator.v_proj.weight"
    assert not torch.equal(weights(plain_run)[name], weights(taught_run)[name])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(line: Line, plain_run: Path, tmp_path: Path) -> None:
    train(line, tmp_path / "again", "--teacher", "none", *epochs(2))
    assert_equal(plain_run, tmp_path / "again")
    train(line, tmp_path / "other", "--teacher", "none", "--seed", "7", *epochs(2))
    name = "navigator.v_proj.weight"
    assert not torch.equal(weights(plain_run)[name], weights(tmp_path / "other")[name])


@pytest.mark.slow
def test_accumulated_batches_make_one_step(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """Also the last one of an epoch, which has fewer trips than the others, or only one batch."""
    assert 0 < len(line.city.trips["train"]) % 16 <= 8, "the last step should have one batch"
    halves = ("--set", "optimizer_config.batch_size=8", "--set", "optimizer_config.accum_steps=2")
    train(line, tmp_path / "run", "--teacher", "none", *halves, *epochs(2))
    assert_agree(plain_run, tmp_path / "run")
    first, second = (json.loads((run / "summary.json").read_text()) for run in (plain_run, tmp_path / "run"))
    assert first["optimiser_steps"] == second["optimiser_steps"]


@pytest.mark.slow
def test_the_uniform_control_needs_no_server(line: Line, tmp_path: Path) -> None:
    train(line, tmp_path / "uniform", "--teacher", "uniform", *epochs(1))
    summary = json.loads((tmp_path / "uniform" / "summary.json").read_text())
    assert summary["kl"] > 0
    assert summary["teacher"] == {"kind": "uniform"}


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_bit_for_bit(line: Line, plain_run: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    process = begin(line, out, "--teacher", "none", *epochs(2))
    wait_for_step(out, 3, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), errors
    if number != signal.SIGKILL:
        assert "--resume continues" in errors
    train(line, out, "--teacher", "none", "--resume", *epochs(2))
    assert_equal(plain_run, out)
    assert steps_logged(out) == steps_logged(plain_run), "a step is missing or doubled in the metrics"


@pytest.mark.slow
@pytest.mark.parametrize("measured", [2, 3], ids=["last-validation", "test"])
def test_a_stop_while_trips_are_measured_is_not_lost(
    line: Line, plain_run: Path, tmp_path: Path, measured: int
) -> None:
    """Of two epochs' runs the second validation is the last, and the test trips come third."""
    out = tmp_path / "run"
    _, program, *words = command(line, out, "--teacher", "none", *epochs(2))[1:]
    assert program == "trainer"
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(measured), *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "and saved; --resume continues" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "summary.json").exists()
    train(line, out, "--teacher", "none", "--resume", *epochs(2))
    assert_equal(plain_run, out)
    assert steps_logged(out) == steps_logged(plain_run)
    assert (out / "summary.json").exists()


@pytest.mark.slow
def test_a_dead_teacher_ends_training_with_a_checkpoint(line: Line, taught_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    server = wait_until_ready(start(line.teacher))
    address = f"grpc://{server.grpc}"
    trainer = begin(line, out, "--teacher", address, "--set", "distill.on_teacher_loss=fail", *epochs(2))
    try:
        wait_for_step(out, 1, trainer)
        server.process.kill()
        server.process.wait()
        _, errors = trainer.communicate(timeout=60)
    finally:
        trainer.kill()
        server.process.kill()
        server.process.communicate()
    assert trainer.returncode == 3
    assert f"no teacher answers at {server.grpc}" in errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    with serve(line.teacher) as fresh:
        train(line, out, "--teacher", f"grpc://{fresh.grpc}", "--resume", *epochs(2))
    assert_close(taught_run, out)


@pytest.mark.slow
def test_a_run_waits_for_its_teacher(line: Line, taught_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    server = wait_until_ready(start(line.teacher))
    trainer = begin(line, out, "--teacher", f"grpc://{server.grpc}", *epochs(2))
    try:
        wait_for_step(out, 3, trainer)
        server.process.kill()
        server.process.communicate()
        with serve(line.teacher, "--grpc-address", server.grpc):
            _, errors = trainer.communicate(timeout=100)
    finally:
        trainer.kill()
        server.process.kill()
    assert trainer.returncode == 0, errors
    assert f"no teacher answers at {server.grpc} (UNAVAILABLE: " in errors
    assert "a teacher answers again after " in errors
    assert_close(taught_run, out)
    assert steps_logged(out) == steps_logged(taught_run)


@pytest.mark.slow
def test_a_local_teacher_needs_no_port_and_leaves_nobody_behind(line: Line, taught_run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "teacher"
    elsewhere.symlink_to(line.teacher)  # a name of its own, to find its server by
    train(line, tmp_path / "run", "--teacher", f"local:{elsewhere}", *epochs(2))
    assert_close(taught_run, tmp_path / "run")
    assert servers_of(elsewhere) == []


@pytest.mark.slow
def test_a_local_teacher_ends_with_a_killed_trainer(line: Line, tmp_path: Path) -> None:
    elsewhere = tmp_path / "teacher"
    elsewhere.symlink_to(line.teacher)
    process = begin(line, tmp_path / "run", "--teacher", f"local:{elsewhere}", *epochs(50))
    wait_for_step(tmp_path / "run", 1, process)
    assert len(servers_of(elsewhere)) == 1
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while servers_of(elsewhere):
        assert time.monotonic() < deadline, "the teacher outlived its trainer"
        time.sleep(0.1)


def servers_of(artifact: Path) -> list[int]:
    """Processes that serve an artifact."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if "serve" in words and str(artifact) in words:
            found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def refused(line: Line, out: Path, *flags: str) -> str:
    """A run that must not start: exit status 2, one line, nothing written."""
    errors = train(line, out, *flags, status=2)
    assert errors.count("trainer: error:") == 1
    assert not out.exists()
    return errors


def test_another_digest_is_refused(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    wanted = "0" * 64
    flags = ("--teacher", f"grpc://{served.grpc}", "--set", f"distill.teacher_digest='{wanted}'")
    errors = refused(line, tmp_path / "run", *flags)
    assert wanted in errors
    assert served.digest in errors


def test_another_cell_size_is_refused(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    errors = refused(line, tmp_path / "run", "--teacher", f"grpc://{served.grpc}", "--set", "distill.grid_size=0.002")
    assert "0.002 in the config" in errors
    assert "0.001 at the teacher" in errors


@pytest.mark.slow
def test_a_teacher_of_another_city_is_refused(line: Line, tmp_path: Path) -> None:
    tiny_artifact(tmp_path / "elsewhere")
    errors = refused(line, tmp_path / "run", "--teacher", f"local:{tmp_path / 'elsewhere'}")
    assert "roads lie outside the teacher's grid" in errors
    assert "the road map spans" in errors


@pytest.mark.slow
def test_resuming_with_another_teacher_is_refused(
    line: Line, taught_run: Path, served: RunningTeacher, tmp_path: Path
) -> None:
    digest = city_teacher(tmp_path / "other", line.city, seed=4)
    flags = ("--resume", "--teacher", f"local:{tmp_path / 'other'}", *epochs(2))
    errors = train(line, taught_run, *flags, status=2)
    assert served.digest[:16] in errors
    assert digest[:16] in errors


@pytest.mark.slow
def test_another_teacher_on_the_same_port_stops_the_run(line: Line, tmp_path: Path) -> None:
    """The digest travels with every request, so a swapped server cannot teach unnoticed."""
    digest = city_teacher(tmp_path / "other", line.city, seed=4)
    first = wait_until_ready(start(line.teacher))
    trainer = begin(line, tmp_path / "run", "--teacher", f"grpc://{first.grpc}", *epochs(200))
    try:
        wait_for_step(tmp_path / "run", 2, trainer)
        os.kill(trainer.pid, signal.SIGSTOP)
        first.stop()
        with serve(tmp_path / "other", "--grpc-address", first.grpc):
            os.kill(trainer.pid, signal.SIGCONT)
            _, errors = trainer.communicate(timeout=60)
    finally:
        trainer.kill()
        first.process.kill()
        for stream in (first.process.stdout, first.process.stderr):
            if stream:
                stream.close()
    assert trainer.returncode == 2, errors
    assert first.digest in errors
    assert digest in errors
