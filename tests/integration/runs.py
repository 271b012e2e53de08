"""Runs of the trainer's command as real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.integration.line import Line

FAST = ("--set", "optimizer_config.batch_size=16", "--set", "profiling.log_interval=1", "--cpu-threads", "1")


def command(line: Line, out: Path, *flags: str) -> list[str]:
    where = ("--data", str(line.data), "--cache", str(line.cache), "--out", str(out))
    if "--labels" not in flags:  # of its own, so that every run has a teacher to ask
        flags = ("--labels", f"{out}.labels", *flags)
    return [sys.executable, "-m", "trainer", "train", *where, *FAST, *flags]


def train(line: Line, out: Path, *flags: str, status: int = 0) -> str:
    """Runs to the end; returns what it said on stderr."""
    done = subprocess.run(command(line, out, *flags), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def epochs(count: int) -> tuple[str, str]:
    return "--set", f"optimizer_config.max_epoch={count}"


def weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(out / "checkpoints" / "last.pt", weights_only=True)["model"])


def assert_equal(a: Path, b: Path) -> None:
    """Bit for bit."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def assert_close(a: Path, b: Path) -> None:
    """As close as two runs with a live teacher are: the server's batches depend on who asks when."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-4), name


def assert_agree(a: Path, b: Path, outliers: float = 1e-3) -> None:
    """As close as rounding leaves two runs: AdamW divides by the gradient's size, so where that is nearly zero, its
    last bits decide, more so with every step.
    """
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    apart = torch.cat([(value - second[name]).abs().flatten() for name, value in first.items()]).float()
    assert apart.quantile(0.99) < 1e-5, apart.quantile(0.99)
    assert apart.max() < outliers, apart.max()


def assert_undisturbed(out: Path, undisturbed: Path) -> dict[str, Any]:
    """Every step once, with the loss and the KL that it has in the undisturbed run, and the same student."""
    found, meant = (
        [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()] for run in (out, undisturbed)
    )
    assert [values["step"] for values in found] == [values["step"] for values in meant]
    steps = [values for values in found if "loss" in values]
    assert [values["step"] for values in steps] == list(range(1, len(steps) + 1))
    for name in ("loss", "loss_kl"):
        wanted = [values[name] for values in meant if "loss" in values]
        np.testing.assert_allclose([values[name] for values in steps], wanted, rtol=1e-3, err_msg=name)
    assert_agree(undisturbed, out, outliers=5e-3)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert (summary["optimiser_steps"], summary["bad_steps"], summary["kl_missed"]) == (len(steps), 0, 0)
    return summary


def steps_logged(out: Path) -> list[int]:
    file = out / "metrics.jsonl"
    return (
        [json.loads(text)["step"] for text in file.read_text().splitlines() if text.endswith("}")]
        if file.exists()
        else []
    )


def wait_for_step(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while max(steps_logged(out), default=0) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begin(line: Line, out: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(line, out, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
