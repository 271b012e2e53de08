"""Runs whose KL is on routes that the student draws: with a real server, a real kill, and on two ranks."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.line import Line
from tests.integration.runs import assert_close, assert_equal, begin, epochs, steps_logged, train, wait_for_step
from tests.integration.test_ranks import HALF, train_ranks
from tests.serving import RunningTeacher

ONCE = ("--set", "distill.own_max_steps=15", *epochs(1))
OFTEN = ("--set", "distill.own_max_steps=15", "--set", "distill.refresh_every=4", *epochs(2))
ON = ("--set", "distill.mode=on-policy")
MIXED = ("--set", "distill.mode=mixed")


def drawn(out: Path) -> dict[int, dict[str, torch.Tensor]]:
    return dict(torch.load(out / "checkpoints" / "last.pt", weights_only=True)["progress"]["own_routes"])


def assert_same_routes(a: Path, b: Path) -> None:
    first, second = drawn(a), drawn(b)
    assert first.keys() == second.keys() == {0}
    for name, values in first[0].items():
        assert torch.equal(values, second[0][name]), name


def summary_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text()))


@pytest.mark.slow
def test_a_live_teacher_scores_the_roads_that_the_student_could_have_taken(
    line: Line, served: RunningTeacher, tmp_path: Path
) -> None:
    """Twice the same routes; the store of labels keeps the real trips' answers only."""
    address = ("--teacher", f"grpc://{served.grpc}")
    for name in ("a", "b"):
        train(line, tmp_path / name, *address, *MIXED, *ONCE)
    assert_same_routes(tmp_path / "a", tmp_path / "b")
    assert_close(tmp_path / "a", tmp_path / "b")
    summary, trips = summary_of(tmp_path / "a"), len(line.city.trips["train"])
    assert summary["own_routes"]["own_trips"] == pytest.approx(trips / 2, abs=2)
    assert summary["own_routes"]["own_steps"] > trips
    assert 0 < summary["labels_kept"]["train"] <= 1
    lines = [json.loads(text) for text in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert all(values["loss_kl_own"] > 0 for values in lines if "loss_kl" in values)
    assert lines[0]["perf/own_routes_ms"] > 0
    assert lines[-1]["train/loss_kl_own"] > 0
    errors = train(line, tmp_path / "c", "--teacher", "labels", "--labels", f"{tmp_path}/a.labels", *ON, status=2)
    assert "kept labels know nothing of routes that the student draws" in errors


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(line: Line, tmp_path: Path) -> None:
    flags = ("--teacher", "uniform", *MIXED, *OFTEN)
    train(line, tmp_path / "undisturbed", *flags)
    out = tmp_path / "killed"
    process = begin(line, out, *flags, "--set", "training.checkpoint_every_s=0")
    wait_for_step(out, 5, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert torch.load(out / "checkpoints" / "last.pt", weights_only=True)["progress"]["step"] >= 4
    errors = train(line, out, "--resume", "--set", "distill.prefetch=3", status=2)
    assert "distill.prefetch: the run was made with 2, this is 3" in errors
    train(line, out, "--resume")
    assert_equal(tmp_path / "undisturbed", out)
    assert steps_logged(out) == steps_logged(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_ranks_draw_what_one_rank_with_twice_the_batch_draws(line: Line, tmp_path: Path) -> None:
    flags = ("--teacher", "uniform", *ON, *ONCE)
    train(line, tmp_path / "one", *flags)
    train_ranks(line, tmp_path / "two", *flags, *HALF)
    assert_same_routes(tmp_path / "one", tmp_path / "two")
    one, two = summary_of(tmp_path / "one"), summary_of(tmp_path / "two")
    assert one["own_routes"] == two["own_routes"]
    assert one["kl"] == pytest.approx(two["kl"], abs=1e-3)
