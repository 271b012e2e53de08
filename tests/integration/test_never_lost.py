"""What dies or diverges in the middle of a run costs time, never a step."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from tests.integration.line import Line
from tests.integration.runs import (
    assert_equal,
    assert_undisturbed,
    begin,
    epochs,
    steps_logged,
    train,
    wait_for_step,
)
from tests.serving import RunningTeacher, start, wait_until_ready
from trainer.tracking import EPOCH_FIGURE

pytestmark = pytest.mark.slow

OFTEN = ("--set", "training.checkpoint_every_s=0")


def test_twenty_kills_at_random_moments_change_nothing(line: Line, tmp_path: Path) -> None:
    """Saving after every step, so that kills also fall into writing."""
    undisturbed, out, chance = tmp_path / "undisturbed", tmp_path / "run", random.Random(20)
    train(line, undisturbed, "--teacher", "none", *epochs(30))
    resumable = out / "origin.json"
    kills = 0
    while kills < 20:
        again = ("--resume",) if resumable.exists() else ()
        process = begin(line, out, "--teacher", "none", *again, *epochs(30), *OFTEN)
        try:
            if kills % 4:  # the others die while they start
                wait_for_step(out, max(steps_logged(out), default=0) + 1, process)
            time.sleep(chance.uniform(0, 0.25) if kills % 4 else chance.uniform(0, 4))
            assert process.poll() is None, "the run ended before it was killed often enough"
        finally:
            process.kill()
            process.communicate()
        kills += 1
        if (out / "summary.json").exists():
            pytest.fail(f"the run was finished after {kills} kills")
    train(line, out, "--teacher", "none", "--resume", *epochs(30), *OFTEN)
    assert_equal(undisturbed, out)
    assert steps_logged(out) == steps_logged(undisturbed), "a step is missing or doubled in the metrics"
    figures = [json.loads((run / "summary.json").read_text()) for run in (undisturbed, out)]
    for name in ("next_step_accuracy", "choice_accuracy", "mape_seconds", "optimiser_steps", "best_epoch"):
        assert figures[0][name] == figures[1][name], name


def test_kills_with_a_live_teacher_change_no_more_than_its_batches_do(
    line: Line, served: RunningTeacher, tmp_path: Path
) -> None:
    """Nothing is kept of its answers, so the teacher is asked anew about the steps after the last checkpoint."""
    undisturbed, out, chance = tmp_path / "undisturbed", tmp_path / "run", random.Random(4)
    flags = ("--teacher", f"grpc://{served.grpc}", "--set", "distill.keep_labels=false", *epochs(4))
    train(line, undisturbed, *flags)
    for kill in range(3):
        process = begin(line, out, *flags, *OFTEN, *(("--resume",) if kill else ()))
        try:
            wait_for_step(out, max(steps_logged(out), default=0) + 2, process)
            time.sleep(chance.uniform(0, 0.05))
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()
    train(line, out, *flags, *OFTEN, "--resume")
    assert_undisturbed(out, undisturbed)


def test_a_run_goes_on_without_the_kl_when_told_so(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "run"
    server = wait_until_ready(start(line.teacher))
    policy = (
        "--set",
        "distill.on_teacher_loss=skip-kl",
        "--set",
        "distill.deadline_s=5",
        "--set",
        "distill.keep_labels=false",
    )
    trainer = begin(line, out, "--teacher", f"grpc://{server.grpc}", *policy, *epochs(3))
    try:
        wait_for_step(out, 2, trainer)
        server.process.kill()
        _, errors = trainer.communicate(timeout=100)
    finally:
        trainer.kill()
        server.process.kill()
        server.process.communicate()
    assert trainer.returncode == 0, errors
    assert "Traceback" not in errors
    lines = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    epoch_lines = [values for values in lines if EPOCH_FIGURE in values]
    steps = len(line.city.trips["train"].roads) - len(line.city.trips["train"])
    assert len(epoch_lines) == 3
    last_two = [values["kl_missed"] for values in epoch_lines[-2:]]  # counted over the whole run
    assert last_two[1] - last_two[0] == steps, "in the last epoch nobody answered"
    assert epoch_lines[-1]["train/loss_kl"] is None
    assert epoch_lines[0]["train/loss_kl"] > 0


def test_a_diverging_run_ends_with_a_message_and_its_bad_steps_counted(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "run"
    wild = ("--set", "optimizer_config.learning_rate=1e30", "--max-bad-steps", "3")
    errors = train(line, out, "--teacher", "none", *wild, *epochs(3), status=1)
    assert "not finite in 4 steps (training.max_bad_steps is 3)" in errors
    assert (out / "checkpoints" / "last.pt").exists()
