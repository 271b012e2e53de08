"""`trainer label` as processes against a real teacher: right values, kills, interruptions, company, a full disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.integration.line import Line, city_teacher
from tests.integration.test_targets import ask, reach
from tests.serving import RunningTeacher, serve, start, wait_until_ready
from tests.teacher_server.full_disk import files_end_at
from tests.trainer.datasets import files_in, refused, trainer
from trainer.clock import Clock
from trainer.data.features import Network
from trainer.examples import ExampleMaker
from trainer.teacher.stored import StoredTargets
from trainer.teacher.subject import Subject

# Small requests, so that a small city needs many of them.
SMALL_REQUESTS = """
import trainer.teacher.questions
from trainer.__main__ import main
trainer.teacher.questions.REQUEST_TOKENS = 60
main()
"""


def words(line: Line, labels: Path, address: str, window: int) -> list[str]:
    where = ["--data", str(line.data), "--cache", str(line.cache), "--labels", str(labels), "--teacher", address]
    return ["label", *where, "--set", f"distill.window={window or 'full'}"]


def begin(line: Line, labels: Path, address: str, window: int, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SMALL_REQUESTS, *words(line, labels, address, window), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def end(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == status, err
    assert "Traceback" not in err
    return out, err


def label(line: Line, labels: Path, address: str, window: int) -> str:
    return end(begin(line, labels, address, window))[0]


def contents(labels: Path) -> dict[str, bytes]:
    return {name: content for name, (content, _) in files_in(labels).items()}


def answers(labels: Path) -> int:
    """How many requests' or trips' answers are kept."""
    count = 0
    for file in labels.glob("*/marks.u32"):
        with contextlib.suppress(FileNotFoundError):  # taken away just now
            count += int(np.count_nonzero(np.frombuffer(file.read_bytes(), "<u4")))
    return count


def stop_at(process: subprocess.Popen[str], labels: Path, count: int, number: signal.Signals) -> None:
    """Sends a signal as soon as so many answers are kept."""
    deadline = time.monotonic() + 100
    while process.poll() is None and answers(labels) < count:
        assert time.monotonic() < deadline
    process.send_signal(number)


@pytest.mark.parametrize("window", [1, 4, 7, 0])
def test_labels_are_the_direct_answers_rounded(line: Line, served: RunningTeacher, window: int, tmp_path: Path) -> None:
    """And the store knows no shared-cell rule: it is applied to what is read as to what is asked."""
    count = len(line.city.trips["train"])
    assert f"train: {count} trips" in label(line, tmp_path, f"grpc://{served.grpc}", window)
    with reach(served.grpc) as teacher:
        subject = Subject(line.city, "train", 1024, window, teacher.description)
    store = subject.open_store(tmp_path)
    assert store.complete
    for rule in ("full", "split"):
        direct, tokens = ask(line, served, list(range(count)), window, shared_cells=rule)
        targets = StoredTargets(store, None, tokens, longest_history=subject.longest_history)
        maker = ExampleMaker(Network.of(line.city.road_map), torch.device("cpu"), 1024, "original", Clock(), rule)
        found = maker.make(line.city.trips["train"], np.arange(count), targets=targets).target
        assert found is not None
        asked = torch.isfinite(direct.log_probs)
        assert torch.equal(asked, torch.isfinite(found.log_probs))
        assert torch.allclose(found.log_probs[asked], direct.log_probs[asked], rtol=2e-3, atol=2e-3)
        if rule == "full":  # but for answers at the border between two halves, which another batch moves
            assert (found.log_probs != direct.log_probs.half().float()).float().mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("window", [0, 4])
def test_killed_at_any_moment_it_goes_on_to_the_same_files(line: Line, tmp_path: Path, window: int) -> None:
    """Requests depend on the data only and the server mixes none of them, so not a bit is different."""
    rng = np.random.default_rng(window)
    with serve(line.teacher) as server:
        address = f"grpc://{server.grpc}"
        label(line, tmp_path / "undisturbed", address, window)
        killed = 0
        for count in sorted(rng.integers(1, 40, 3).tolist()):
            process = begin(line, tmp_path / "labels", address, window)
            stop_at(process, tmp_path / "labels", count, signal.SIGKILL)
            process.communicate(timeout=100)
            killed += process.returncode == -signal.SIGKILL
        assert killed >= 2
        label(line, tmp_path / "labels", address, window)
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("window", [0, 4])
def test_interrupted_it_says_so_and_goes_on(
    line: Line, served: RunningTeacher, number: signal.Signals, window: int, tmp_path: Path
) -> None:
    address = f"grpc://{served.grpc}"
    process = begin(line, tmp_path, address, window)
    stop_at(process, tmp_path, 5, number)
    _, err = end(process, 128 + number)
    assert "labelling stopped; what was answered is kept, and the same command goes on" in err
    assert answers(tmp_path) >= 5
    out = label(line, tmp_path, address, window)
    if not window:
        assert "(0.0% were there" not in out
    assert "0 steps without a finite answer" in out


@pytest.mark.slow
def test_a_dead_teacher_ends_it_and_another_one_goes_on(line: Line, tmp_path: Path) -> None:
    first = wait_until_ready(start(line.teacher))
    process = begin(line, tmp_path, f"grpc://{first.grpc}", 4, "--set", "distill.on_teacher_loss=fail")
    stop_at(first.process, tmp_path, 5, signal.SIGKILL)
    first.process.communicate()
    _, err = end(process, 3)
    assert first.grpc in err
    assert "labelling stopped; what was answered is kept" in err
    assert answers(tmp_path) >= 5
    with serve(line.teacher) as second:
        label(line, tmp_path, f"grpc://{second.grpc}", 4)
        assert answers(tmp_path) == len(line.city.trips["train"])


@pytest.mark.slow
def test_one_of_two_teachers_dies(line: Line, tmp_path: Path) -> None:
    """The other one answers what it was asked; not a bit is different."""
    with serve(line.teacher) as first, serve(line.teacher) as second:
        label(line, tmp_path / "undisturbed", f"grpc://{first.grpc}", 4)
        process = begin(line, tmp_path / "labels", f"grpc://{first.grpc},{second.grpc}", 4)
        stop_at(second.process, tmp_path / "labels", 5, signal.SIGKILL)
        second.process.communicate()
        end(process)
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_at_once_share_the_work(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    address = f"grpc://{served.grpc}"
    label(line, tmp_path / "alone", address, 4)
    both = [begin(line, tmp_path / "labels", address, 4) for _ in range(2)]
    ended = [end(process) for process in both]
    assert sum("another process fills" in err for _, err in ended) <= 1
    assert contents(tmp_path / "labels") == contents(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("window", [0, 4])
def test_the_other_protocol_gives_the_same_labels(
    line: Line, served: RunningTeacher, window: int, tmp_path: Path
) -> None:
    """Bulk there too, so again not a bit is different."""
    label(line, tmp_path / "grpc", f"grpc://{served.grpc}", window)
    label(line, tmp_path / "triton", f"triton://{served.grpc}/teacher", window)
    assert contents(tmp_path / "triton") == contents(tmp_path / "grpc")


def test_several_splits_and_a_second_time(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    command = [*words(line, tmp_path, f"grpc://{served.grpc}", 0), "--split", "val", "--split", "test"]
    first = trainer(*command)
    assert first.status == 0, first.err
    made = contents(tmp_path)
    again = trainer(*command)
    for name in ("val", "test"):
        assert f"{name}: {len(line.city.trips[name])} trips" in first.out
        assert f"{name}: {len(line.city.trips[name])} trips" in again.out
    assert first.out.count("(0.0% were there") == again.out.count("(100.0% were there") == 2
    assert contents(tmp_path) == made


def test_a_full_disk_is_met_before_anything_is_asked(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    with files_end_at(1000):
        outcome = trainer(*words(line, tmp_path, f"grpc://{served.grpc}", 0))
    refused(outcome, f"{tmp_path}: labels need ", "make room or name another folder with --labels", status=1)
    assert not files_in(tmp_path)


@pytest.mark.slow
def test_another_teacher_has_labels_of_its_own(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    city_teacher(tmp_path / "other", line.city, seed=4)
    label(line, tmp_path / "labels", f"grpc://{served.grpc}", 0)
    made = contents(tmp_path / "labels")
    with serve(tmp_path / "other") as other:
        label(line, tmp_path / "labels", f"grpc://{other.grpc}", 0)
    both = contents(tmp_path / "labels")
    assert len(both) == 2 * len(made)
    assert {name: both[name] for name in made} == made


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--teacher", "none"), "--teacher none: gives no labels to keep"),
        (("--teacher", "uniform"), "--teacher uniform: gives no labels to keep"),
        ((), "no teacher: give --teacher local:FOLDER"),
        (("--teacher", "grpc://127.0.0.1:9", "--split", "dev"), "--split must be train, val or test, not 'dev'"),
        (("--teacher", "elsewhere"), "teacher address 'elsewhere': must be"),
    ],
)
def test_mistakes(line: Line, flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    where = ("--data", line.data, "--cache", line.cache, "--labels", tmp_path / "labels")
    refused(trainer("label", *where, *flags), said)
    assert not files_in(tmp_path)
