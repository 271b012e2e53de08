"""Fitting: it learns, it is deterministic, and a run that was killed ends as one that was not."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from teacher_server.artifact import load_artifact
from teacher_server.errors import BadArtifact, BadSettings, EngineFailure
from teacher_server.export import export_run
from teacher_server.fit.likelihood import likelihood
from teacher_server.fit.loop import fit, next_token_loss, resume_run, start_run
from teacher_server.fit.run import FitRun
from teacher_server.fit.sequences import pad_batch
from teacher_server.fit.settings import FitSettings
from teacher_server.fit.tokens import open_tokens
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.vocabulary import SpecialTokens
from tests.teacher_server.full_disk import files_end_at
from tests.teacher_server.token_folders import GRID, token_folder, walks, write_tokens

CPU = torch.device("cpu")
SMALL = {"layers": 1, "heads": 2, "width": 16, "epochs": 2, "batch_size": 8}


def run_fit(data: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    tokens, run = token_folder(data), FitRun(folder)
    return fit(tokens, run, start_run(tokens, run, FitSettings(**{**SMALL, **settings})), CPU)


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def same_weights(one: Path, other: Path) -> bool:
    """Best and last weights, bit for bit."""
    first, second = (load_file(run / "best.safetensors") for run in (one, other))
    last = [torch.load(run / "checkpoint.pt", weights_only=True)["model"] for run in (one, other)]
    return all(torch.equal(first[n], second[n]) for n in first) and all(
        torch.equal(last[0][n], last[1][n]) for n in last[0]
    )


def test_it_learns_and_exports(tmp_path: Path) -> None:
    summary = run_fit(tmp_path / "data", tmp_path / "run", epochs=25, learning_rate=1e-2, dropout=0.0)
    lines = metrics(tmp_path / "run")
    assert [line["epoch"] for line in lines] == list(range(1, 26))
    assert lines[0]["val_perplexity"] > 40  # of 135 tokens
    assert summary["val_perplexity"] < 12
    assert summary["val_loss"] == min(line["val_loss"] for line in lines)
    assert lines[summary["best_epoch"] - 1]["val_loss"] == summary["val_loss"]
    description = export_run(tmp_path / "run", tmp_path / "teacher")
    artifact = load_artifact(tmp_path / "teacher")
    assert artifact.description == description
    assert description.grid == GRID
    assert description.provenance["data_fingerprint"] == "made for a test"
    found = likelihood(artifact.build(), open_tokens(tmp_path / "data").trips("val"), description.special)
    assert found.loss == pytest.approx(summary["val_loss"], abs=1e-6)


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_fit(tmp_path / "data", tmp_path / name, seed=seed)
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


def fit_command(data: Path, out: Path, *more: str) -> list[str]:
    sizes = ("--layers=1", "--heads=2", "--width=16", "--epochs=20", "--batch-size=8", "--checkpoint-steps=3")
    machine = ("--device=cpu", "--cpu-threads=1", f"--out={out}")
    return [sys.executable, "-m", "teacher_server", "fit", str(data), *sizes, *machine, *more]


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    token_folder(tmp_path / "data")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = subprocess.Popen(fit_command(tmp_path / "data", whole), stderr=subprocess.DEVNULL)
    with subprocess.Popen(fit_command(tmp_path / "data", killed), stderr=subprocess.DEVNULL) as process:
        wait_for_epochs(process, killed, 6)
        os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "summary.json").exists()
    (killed / ".checkpoint.pt.1.partial").write_bytes(b"a kill in the middle of a checkpoint leaves this")
    subprocess.run(fit_command(tmp_path / "data", killed, "--resume"), check=True, capture_output=True)
    assert undisturbed.wait(60) == 0
    assert same_weights(whole, killed)
    assert metrics(whole) == metrics(killed)
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}


def wait_for_epochs(process: subprocess.Popen[bytes], run: Path, epochs: int) -> None:
    deadline = time.monotonic() + 60
    path = run / "metrics.jsonl"
    while time.monotonic() < deadline:
        if path.exists() and len(path.read_text().splitlines()) >= epochs:
            return
        assert process.poll() is None, "the fit ended before it could be killed"
        time.sleep(0.002)
    raise AssertionError("the fit made no progress")


def test_in_the_middle_of_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, optimiser and running loss go on where they were; what was done after the checkpoint is done again."""
    settings = {"checkpoint_steps": 3, "epochs": 3, "dropout": 0.3}
    run_fit(tmp_path / "data", tmp_path / "whole", **settings)
    calls = 0

    def stops(model: LMTAD, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 14:  # of 8 an epoch
            raise KeyboardInterrupt
        return next_token_loss(model, inputs, targets)

    with monkeypatch.context() as patch:
        patch.setattr("teacher_server.fit.loop.next_token_loss", stops)
        with pytest.raises(KeyboardInterrupt):
            run_fit(tmp_path / "data", tmp_path / "cut", **settings)
    data, run = open_tokens(tmp_path / "data"), FitRun(tmp_path / "cut")
    state = torch.load(tmp_path / "cut/checkpoint.pt", weights_only=True)
    assert (state["position"]["epoch"], state["position"]["batch"], state["position"]["step"]) == (1, 4, 12)
    fit(data, run, resume_run(data, run), CPU)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_a_complete_run_is_left_alone(tmp_path: Path) -> None:
    summary = run_fit(tmp_path / "data", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    data, run = open_tokens(tmp_path / "data"), FitRun(tmp_path / "run")
    assert fit(data, run, resume_run(data, run), CPU) == summary
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teacher_server.fit.loop.next_token_loss", lambda m, i, t: next_token_loss(m, i, t) * math.nan)
    with pytest.raises(EngineFailure, match="the loss is nan at step 0"):
        run_fit(tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run/checkpoint.pt").exists()
    with pytest.raises(BadArtifact, match="has not completed an epoch"):
        export_run(tmp_path / "run", tmp_path / "out")


def test_the_loss_ignores_padding() -> None:
    model = LMTAD(ModelConfig(128, GRID.cells + 3, 1, 2, 16))
    model.initialise(torch.Generator().manual_seed(0))
    trips = [torch.tensor(trip, dtype=torch.int32).numpy() for trip in walks(7, 5)]
    special = SpecialTokens.after(GRID.cells)
    losses = [next_token_loss(model, *pad_batch([trip], special, 128)) * (len(trip) + 1) for trip in trips]
    expected = torch.stack(losses).sum() / sum(len(trip) + 1 for trip in trips)
    torch.testing.assert_close(next_token_loss(model, *pad_batch(trips, special, 128)), expected, rtol=0, atol=1e-5)


def test_long_trips_are_cut_and_counted(tmp_path: Path) -> None:
    summary = run_fit(tmp_path / "data", tmp_path / "run", block_size=6)
    assert summary["trips_cut"] == sum(len(trip) > 5 for trip in walks(60, 0)) > 0
    assert summary["val_trips_cut"] == sum(len(trip) > 5 for trip in walks(20, 1)) > 0


def test_the_block_size_follows_the_longest_trip(tmp_path: Path) -> None:
    splits = {"train": walks(5, 0), "val": [[1] * 200], "test": walks(5, 1)}
    write_tokens(tmp_path / "data", splits)
    data = open_tokens(tmp_path / "data")
    assert start_run(data, FitRun(tmp_path / "a"), FitSettings()).model.block_size == 201
    write_tokens(tmp_path / "data", {**splits, "val": walks(5, 2)})
    assert start_run(data, FitRun(tmp_path / "b"), FitSettings()).model.block_size == 128


def test_warm_up_and_cosine() -> None:
    settings = FitSettings(warmup_ratio=0.1)
    rates = [settings.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(3e-5)
    assert rates[9] == rates[10] == 3e-4
    assert rates[99] == pytest.approx(3e-5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    middle = 3e-5 + (3e-4 - 3e-5) / 2 * (1 + math.cos(math.pi * 45 / 89))
    assert rates[55] == pytest.approx(middle)


def test_only_matrices_decay(tmp_path: Path) -> None:
    run_fit(tmp_path / "data", tmp_path / "run", epochs=1)
    groups = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 6), (0.0, 3)]
    assert all(group["betas"] == (0.9, 0.99) for group in groups)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"block_size": 1}, "block_size must be at least 2"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"learning_rate": 1e-6}, "min_learning_rate at most learning_rate"),
        ({"learning_rate": math.nan}, "learning rates must be positive"),
        ({"max_norm": 0.0}, "max_norm must be positive"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        FitSettings(**settings)


def test_runs_that_cannot_start_or_go_on(tmp_path: Path) -> None:
    data = token_folder(tmp_path / "data")
    with pytest.raises(BadSettings, match="n_embd 16 is not a multiple of n_head 3"):
        start_run(data, FitRun(tmp_path / "run"), FitSettings(width=16, heads=3))
    run_fit(tmp_path / "data", tmp_path / "run")
    with pytest.raises(BadSettings, match="is not empty: choose another folder, or pass --resume"):
        run_fit(tmp_path / "data", tmp_path / "run")
    with pytest.raises(BadSettings, match="is no run of `teacher fit`"):
        resume_run(data, FitRun(tmp_path / "nowhere"))
    path = tmp_path / "data/tokens.json"
    path.write_text(path.read_text().replace("made for a test", "other trips"))
    message = re.escape(f"{tmp_path / 'run'} was started with data_fingerprint made for a test, but")
    with pytest.raises(BadSettings, match=message):
        resume_run(open_tokens(tmp_path / "data"), FitRun(tmp_path / "run"))


def test_a_full_disk_ends_a_fit_that_can_go_on(tmp_path: Path) -> None:
    settings = {"epochs": 3, "checkpoint_steps": 100}
    run_fit(tmp_path / "data", tmp_path / "whole", **settings)
    sizes = [(tmp_path / "whole" / name).stat().st_size for name in ("best.safetensors", "checkpoint.pt")]
    with files_end_at(sum(sizes) // 2), pytest.raises(BadSettings, match=r"cut/checkpoint\.pt: cannot be .*--resume"):
        run_fit(tmp_path / "data", tmp_path / "cut", **settings)
    names = {path.name for path in (tmp_path / "cut").iterdir()}
    assert names == {"config.json", "metrics.jsonl", "best.safetensors"}
    data, run = open_tokens(tmp_path / "data"), FitRun(tmp_path / "cut")
    fit(data, run, resume_run(data, run), CPU)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    run_fit(tmp_path / "data", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    run, model = FitRun(tmp_path / "run"), LMTAD(ModelConfig(8, GRID.cells + 3, 1, 2, 16))
    writes: dict[str, Callable[[], None]] = {
        "checkpoint.pt": lambda: run.save_checkpoint({"model": model.state_dict()}),
        "best.safetensors": lambda: run.save_best(model),
        "summary.json": lambda: run.save_summary({"seconds": 1.0}),
        "metrics.jsonl": lambda: run.append_metrics({"epoch": 3}),
    }
    for name, write in writes.items():
        message = rf"run/{re.escape(name)}: cannot be written \(.*File too large.*\): make room there, then go on with"
        with files_end_at(8), pytest.raises(BadSettings, match=message):
            write()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_full_disk_for_an_artifact(tmp_path: Path) -> None:
    run_fit(tmp_path / "data", tmp_path / "run")
    with files_end_at(1_000), pytest.raises(BadSettings, match=r"teacher: cannot be written .*File too large"):
        export_run(tmp_path / "run", tmp_path / "teacher")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run"}


def test_damaged_runs(tmp_path: Path) -> None:
    run_fit(tmp_path / "data", tmp_path / "run")
    data, run = open_tokens(tmp_path / "data"), FitRun(tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    for name, attempt, kind in (
        ("checkpoint.pt", lambda: fit(data, run, resume_run(data, run), CPU), BadSettings),
        ("best.safetensors", lambda: export_run(tmp_path / "run", tmp_path / "out"), BadArtifact),
        ("config.json", lambda: resume_run(data, run), BadSettings),
    ):
        path = tmp_path / "run" / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(kind, match=re.escape(str(path))) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        path.write_bytes(whole)
