"""A run keeps the teacher's answers; whoever trains later reads them and gets the same student, bit for bit."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.line import Line
from tests.integration.runs import (
    assert_agree,
    assert_equal,
    begin,
    epochs,
    steps_logged,
    train,
    wait_for_step,
    weights,
)
from tests.serving import RunningTeacher, calls


@pytest.fixture(scope="module")
def first(line: Line, served: RunningTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that fills the store which `labels_of` names."""
    out = tmp_path_factory.mktemp("kept") / "run"
    train(line, out, "--teacher", f"grpc://{served.grpc}", *epochs(2))
    return out


def labels_of(run: Path) -> tuple[str, str]:
    return "--labels", f"{run}.labels"


def test_the_first_run_fills_the_store(first: Path) -> None:
    summary = json.loads((first / "summary.json").read_text())
    assert summary["labels_kept"] == {"train": 1.0, "test": 1.0}


def test_a_second_run_asks_nothing_and_equals_the_first(
    line: Line, first: Path, served: RunningTeacher, tmp_path: Path
) -> None:
    """The run that filled the store trained on the rounded values that it kept."""
    before = calls(served)
    train(line, tmp_path / "run", "--teacher", f"grpc://{served.grpc}", *labels_of(first), *epochs(2))
    assert calls(served) == before
    assert_equal(first, tmp_path / "run")
    figures = [json.loads((run / "summary.json").read_text()) for run in (first, tmp_path / "run")]
    for name in ("kl", "steps_scored", "tied_share", "truncated_histories", "next_step_accuracy"):
        assert figures[0][name] == figures[1][name], name


@pytest.mark.slow
def test_other_settings_read_the_same_labels(line: Line, first: Path, served: RunningTeacher, tmp_path: Path) -> None:
    """Lambda, temperature, positions, shared cells, the filter and the seed change what is made of them."""
    before = calls(served)
    other = ("distill.lambda=0.5", "distill.temperature=3", "distill.shared_cells=split", "data.candidate_top_k=2")
    flags = [word for setting in (*other, "distill.positions=last") for word in ("--set", setting)]
    train(
        line,
        tmp_path / "run",
        "--teacher",
        f"grpc://{served.grpc}",
        *labels_of(first),
        *flags,
        "--seed",
        "3",
        *epochs(1),
    )
    assert calls(served) == before
    assert weights(first).keys() == weights(tmp_path / "run").keys()


@pytest.mark.slow
def test_kept_labels_need_no_teacher(line: Line, first: Path, tmp_path: Path) -> None:
    """Not even its address; and a run that was begun with a teacher goes on with its labels."""
    train(line, tmp_path / "run", "--teacher", "labels", *labels_of(first), *epochs(2))
    assert_equal(first, tmp_path / "run")
    figures = [json.loads((run / "summary.json").read_text()) for run in (first, tmp_path / "run")]
    for name in ("kl", "steps_scored", "tied_share", "truncated_histories", "next_step_accuracy"):
        assert figures[0][name] == figures[1][name], name
    assert figures[0]["teacher"]["digest"] == figures[1]["teacher"]["digest"]
    train(line, first, "--teacher", "labels", "--resume", *labels_of(first), *epochs(2))


@pytest.mark.slow
def test_labels_that_are_not_there_are_asked_for(line: Line, first: Path, tmp_path: Path) -> None:
    wanted = ("--teacher", "labels", *epochs(1))
    errors = train(line, tmp_path / "run", *wanted, "--labels", str(tmp_path / "none"), status=2)
    assert "has no labels of this data for window full" in errors
    errors = train(line, tmp_path / "run", *wanted, *labels_of(first), "--set", "distill.window=3", status=2)
    assert "window 3" in errors
    assert "`trainer label`" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_window_has_labels_of_its_own(line: Line, first: Path, served: RunningTeacher, tmp_path: Path) -> None:
    before = calls(served)
    window = ("--set", "distill.window=2")
    train(line, tmp_path / "run", "--teacher", f"grpc://{served.grpc}", *labels_of(first), *window, *epochs(1))
    assert calls(served) > before


@pytest.mark.slow
def test_no_labels_are_kept_when_told_so(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(line, out, "--teacher", f"grpc://{served.grpc}", "--set", "distill.keep_labels=false", *epochs(1))
    assert not Path(f"{out}.labels").exists()


@pytest.mark.slow
def test_kills_change_nothing_with_a_complete_store(
    line: Line, first: Path, served: RunningTeacher, tmp_path: Path
) -> None:
    out, chance = tmp_path / "run", random.Random(7)
    flags = ("--teacher", f"grpc://{served.grpc}", *labels_of(first), "--set", "training.checkpoint_every_s=0")
    for kill in range(6):
        again = ("--resume",) if kill else ()
        process = begin(line, out, *flags, *again, *epochs(2))
        try:
            wait_for_step(out, max(steps_logged(out), default=0) + 1, process)
            time.sleep(chance.uniform(0, 0.2))
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()
    train(line, out, *flags, "--resume", *epochs(2))
    assert_equal(first, out)


@pytest.mark.slow
def test_a_store_that_was_cut_between_two_runs(line: Line, first: Path, served: RunningTeacher, tmp_path: Path) -> None:
    """What was lost is asked again; a run that asks nobody says that it is not there."""
    wanted = ("--labels", str(tmp_path / "labels"), *epochs(2))
    cut_labels(first, tmp_path / "labels")
    errors = train(line, tmp_path / "refused", "--teacher", "labels", *wanted, status=2)
    assert re.search(r"labels: has labels of \d\d\.\d% of the train trips only; `trainer label` makes", errors), errors
    shutil.rmtree(tmp_path / "labels")

    cut_labels(first, tmp_path / "labels")
    before = calls(served)
    errors = train(line, tmp_path / "run", "--teacher", f"grpc://{served.grpc}", *wanted)
    assert len(re.findall(r"was damaged; of \d+ trips \d+ are left, the others are asked again", errors)) == 2, errors
    assert calls(served) > before
    assert_agree(first, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["labels_kept"] == {"train": 1.0, "test": 1.0}


def cut_labels(run: Path, labels: Path) -> None:
    """A copy of a run's labels whose files end too early: the train trips' values, the test trips' marks."""
    shutil.copytree(f"{run}.labels", labels)
    for name in ("train-*/values.f16", "test-*/marks.u32"):
        for file in labels.glob(name):  # another window has its own
            os.truncate(file, file.stat().st_size // 2 - 1)


@pytest.mark.slow
def test_a_resumed_run_finds_its_labels_again(line: Line, first: Path, tmp_path: Path) -> None:
    """And its cache, though neither is named again."""
    out = tmp_path / "run"
    process = begin(line, out, "--teacher", "labels", *labels_of(first), *epochs(2))
    wait_for_step(out, 3, process)
    process.terminate()
    process.communicate(timeout=60)
    again = [sys.executable, "-m", "trainer", "train", "--out", str(out), "--resume", "--cpu-threads", "1"]
    done = subprocess.run(again, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert_equal(first, out)
