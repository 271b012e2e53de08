"""Runs on several ranks under torchrun: the same student as one rank's, and no rank outlives another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.line import Line
from tests.integration.mortal import Mortal
from tests.integration.runs import (
    assert_agree,
    assert_equal,
    assert_undisturbed,
    command,
    epochs,
    steps_logged,
    train,
    wait_for_step,
)
from tests.integration.wandb_files import sessions
from tests.serving import serve
from trainer.checkpoint import read_progress
from trainer.run_folder import RunFolder

HALF = ("--set", "optimizer_config.batch_size=8")
TWO = ("--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--no-python")


def begin_ranks(line: Line, out: Path, *flags: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", *TWO]
    return subprocess.Popen(
        [*launcher, *command(line, out, *flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out + errors


def train_ranks(line: Line, out: Path, *flags: str) -> str:
    status, said = end(begin_ranks(line, out, *flags))
    assert status == 0, said
    return said


def rank_pid(launcher: subprocess.Popen[str], rank: int) -> int:
    """The process of a rank among the launcher's children."""
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise AssertionError(f"no rank {rank}")


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def two_ranks(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks") / "run"
    watched = ("--set", "wandb.enable=true", "--set", "wandb.mode=offline", "--set", "tensorboard.enable=true")
    train_ranks(line, out, "--teacher", "uniform", *epochs(2), *HALF, *watched)
    return out


def test_only_the_first_rank_shows_its_figures(two_ranks: Path) -> None:
    (session,) = sessions(two_ranks)
    assert [row["_step"] for row in session.rows] == sorted(set(steps_logged(two_ranks)))
    assert len(list((two_ranks / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_two_ranks_equal_one_rank_with_twice_the_batch(line: Line, two_ranks: Path, tmp_path: Path) -> None:
    """The last step of an epoch has trips for one rank only; all parts of the loss are means over both ranks' steps."""
    trips = len(line.city.trips["train"])
    assert 0 < trips % 16 <= 8, "the last step should leave a rank without trips"
    train(line, tmp_path / "one", "--teacher", "uniform", *epochs(2))
    assert_agree(tmp_path / "one", two_ranks)
    losses = [[line["loss"] for line in logged(out) if "loss" in line] for out in (tmp_path / "one", two_ranks)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert steps_logged(two_ranks) == steps_logged(tmp_path / "one"), "only the first rank writes"
    summaries = [json.loads((out / "summary.json").read_text()) for out in (tmp_path / "one", two_ranks)]
    assert summaries[0]["test_steps"] == summaries[1]["test_steps"]
    assert summaries[0]["kl"] == pytest.approx(summaries[1]["kl"], abs=1e-4)
    assert summaries[0]["next_step_accuracy"] == pytest.approx(summaries[1]["next_step_accuracy"], abs=0.01)


@pytest.mark.slow
def test_a_lost_rank_ends_all_and_the_run_resumes(line: Line, two_ranks: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = begin_ranks(line, out, "--teacher", "uniform", *epochs(2), *HALF)
    wait_for_step(out, 3, launcher)
    os.kill(rank_pid(launcher, 1), signal.SIGKILL)
    killed = time.monotonic()
    status, said = end(launcher)
    assert status != 0
    assert time.monotonic() - killed < 60
    assert "another process of this run is gone" in said
    assert "--resume continues" in said
    train_ranks(line, out, "--teacher", "uniform", "--resume", *epochs(2), *HALF)
    assert_equal(two_ranks, out)
    assert steps_logged(out) == steps_logged(two_ranks)


def test_a_run_of_two_ranks_is_not_resumed_by_one(line: Line, two_ranks: Path) -> None:
    errors = train(line, two_ranks, "--teacher", "uniform", "--resume", *epochs(2), *HALF, status=2)
    assert "made with 2 processes, this is one with 1" in errors


@pytest.mark.slow
def test_a_dead_teacher_ends_all_ranks_and_the_run_resumes(line: Line, taught_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    teacher = Mortal(line.teacher)
    teacher.ready()
    fail = ("--set", "distill.on_teacher_loss=fail")
    launcher = begin_ranks(line, out, "--teacher", f"grpc://{teacher.where}", *fail, *epochs(2), *HALF)
    try:
        wait_for_step(out, 1, launcher)
    finally:
        teacher.kill()
    status, said = end(launcher)
    assert status == 1, said
    stopped = read_progress(RunFolder(out).last).step
    assert "no teacher answers at " in said
    assert f"; training stopped at step {stopped}, --resume continues" in said
    with serve(line.teacher) as fresh:
        train_ranks(line, out, "--teacher", f"grpc://{fresh.grpc}", "--resume", *epochs(2), *HALF)
    assert_undisturbed(out, taught_run)


@pytest.mark.slow
def test_a_launcher_that_is_told_to_stop_leaves_a_run_to_go_on_with(
    line: Line, two_ranks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    launcher = begin_ranks(line, out, "--teacher", "uniform", *epochs(2), *HALF)
    wait_for_step(out, 1, launcher)
    launcher.terminate()
    status, said = end(launcher)
    assert status == 1, said
    stopped = read_progress(RunFolder(out).last).step
    assert said.count(f"trainer: stopped at step {stopped} and saved; --resume continues") == 1
    train_ranks(line, out, "--teacher", "uniform", "--resume", *epochs(2), *HALF)
    assert_equal(two_ranks, out)
    assert steps_logged(out) == steps_logged(two_ranks)
