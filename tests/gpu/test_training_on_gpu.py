"""Whole training runs on CUDA, as processes: precisions, compilers, kills, a teacher on the same device."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.integration.line import Line
from tests.integration.runs import assert_agree, assert_equal, begin, epochs, steps_logged, train, wait_for_step
from tests.serving import serve

GPU = ("--device", "cuda")


@pytest.fixture(scope="module")
def plain_run(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "run"
    train(line, out, "--teacher", "none", *GPU, *epochs(2))
    return out


def accuracy(run: Path) -> float:
    return float(json.loads((run / "summary.json").read_text())["next_step_accuracy"])


def test_a_run_as_on_a_cpu(line: Line, plain_run: Path, tmp_path: Path) -> None:
    train(line, tmp_path / "cpu", "--teacher", "none", "--device", "cpu", *epochs(2))
    assert accuracy(plain_run) == pytest.approx(accuracy(tmp_path / "cpu"), abs=0.01)
    parts = json.loads((plain_run / "summary.json").read_text())["profile"]["parts"]
    assert all(parts[part]["seconds"] > 0 for part in ("hoser_forward", "backward_pass", "optimizer_step"))


def test_the_same_seed_gives_the_same_student(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """But for the order of sums, which a GPU chooses anew each time."""
    train(line, tmp_path / "again", "--teacher", "none", *GPU, *epochs(2))
    assert_agree(plain_run, tmp_path / "again", outliers=5e-3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_resumes_bit_for_bit(line: Line, tmp_path: Path, number: signal.Signals) -> None:
    """Where that is asked for."""
    flags = ("--teacher", "none", *GPU, *epochs(2), "--set", "training.deterministic=true")
    out = tmp_path / "run"
    train(line, tmp_path / "undisturbed", *flags)
    process = begin(line, out, *flags)
    wait_for_step(out, 3, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), errors
    train(line, out, "--resume", *flags)
    assert_equal(tmp_path / "undisturbed", out)
    assert steps_logged(out) == steps_logged(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "setting", ["amp=fp16", "amp=bf16", "allow_tf32=true", "torch_compile=true torch_compile_mode=reduce-overhead"]
)
def test_faster_numbers_learn_as_well(line: Line, plain_run: Path, tmp_path: Path, setting: str) -> None:
    flags = [word for each in setting.split() for word in ("--set", f"training.{each}")]
    train(line, tmp_path / "run", "--teacher", "none", *GPU, *flags, *epochs(2))
    assert accuracy(tmp_path / "run") == pytest.approx(accuracy(plain_run), abs=0.03)


def test_a_teacher_on_the_same_device(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """Labels kept and asked anew give the same student, but for rounding; routes are generated on the device, too."""
    with serve(line.teacher, *GPU) as running:
        address = ("--teacher", f"grpc://{running.grpc}", *GPU, *epochs(2))
        train(line, tmp_path / "asked", *address, "--set", "distill.keep_labels=false")
        train(line, tmp_path / "kept", *address)
        train(line, tmp_path / "own", *address, "--set", "distill.mode=mixed", "--set", "distill.refresh_every=3")
    assert_agree(tmp_path / "asked", tmp_path / "kept", outliers=5e-3)
    assert accuracy(tmp_path / "asked") == pytest.approx(accuracy(plain_run), abs=0.05)
    summary = json.loads((tmp_path / "own" / "summary.json").read_text())
    assert summary["own_routes"]
