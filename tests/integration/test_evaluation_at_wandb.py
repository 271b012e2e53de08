"""Evaluations at W&B, offline: what it keeps is read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.line import Line
from tests.integration.runs import epochs, train
from tests.integration.wandb_files import Session, sessions
from tests.trainer.datasets import refused, trainer
from trainer.evaluate.at_wandb import numbers

OFFLINE = ("--set", "wandb.enable=true", "--set", "wandb.mode=offline", "--set", "wandb.project=routes")
RESEARCH = {
    *("Distance_JSD", "Duration_JSD", "Radius_JSD", "Hausdorff_km", "Hausdorff_norm", "DTW_km", "DTW_norm", "EDR"),
    *("od_pair_match_rate", "origin_match_rate", "destination_match_rate"),
    *(f"total_time_{name}" for name in ("mean", "std", "min", "max", "median", "p95")),
    *(f"{part}_{name}" for part in ("forward_time", "forward_count") for name in ("mean", "std")),
    "throughput_traj_per_sec",
}
OF_WANDB = {"_step", "_runtime", "_timestamp"}


@pytest.fixture(scope="module")
def trained(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose figures W&B has, with generated trips."""
    out = tmp_path_factory.mktemp("at-wandb") / "run"
    train(line, out, "--teacher", "none", *epochs(1), *OFFLINE)
    done = trainer("generate", out, "--cache", line.cache, "--count", "12", "--search", "greedy", "--workers", "1")
    assert done.status == 0, done.err
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that W&B has no evaluation of."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    return Path(shutil.copytree(trained, tmp_path / "run"))


def evaluate(line: Line, run: Path, *flags: str) -> str:
    """Returns what was said on stderr."""
    done = trainer("evaluate", run, "--cache", line.cache, *flags)
    assert done.status == 0, done.err
    return done.err


def figures_of(session: Session) -> dict[str, Any]:
    (row,) = session.rows
    return {name: value for name, value in row.items() if name not in OF_WANDB}


@pytest.mark.slow
def test_figures_join_those_of_the_training(line: Line, run: Path) -> None:
    evaluate(line, run)
    training, evaluation = sessions(run)
    assert (evaluation.run_id, evaluation.project, evaluation.exit_code) == (training.run_id, "routes", 0)
    progress = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["progress"]
    assert (evaluation.run_id, evaluation.rows[0]["_step"]) == (progress["wandb_id"], progress["step"] + 1)
    found = figures_of(evaluation)
    assert found.keys() >= RESEARCH | {"next_step_accuracy", "RoadVisit_JSD", "destination_reached_rate"}
    written = json.loads((run / "evaluation.json").read_text()) | json.loads((run / "generated.json").read_text())
    assert found == {name: pytest.approx(written[name]) for name in found}
    about = evaluation.config.pop("evaluation")
    assert about["generated_digest"] == written["generated_digest"]
    assert about["model_digest"] == written["model_digest"]
    assert evaluation.config == training.config
    assert evaluation.artifacts == {}


def test_files_become_an_artifact_where_it_is_asked_for(line: Line, run: Path) -> None:
    evaluate(line, run, "--wandb-artifact")
    (artifacts,) = (session.artifacts for session in sessions(run)[1:])
    files = ("evaluation.json", "evaluation.npz", "generated.csv", "generated.json")
    assert artifacts == {f"evaluation-{sessions(run)[0].run_id}": {name: (run / name).read_bytes() for name in files}}


def test_other_figures_take_no_place_of_the_usual_ones(line: Line, run: Path) -> None:
    evaluate(line, run, "--split", "val")
    assert figures_of(sessions(run)[1]).keys() > {f"val/{name}" for name in RESEARCH}
    fused = {"split": "test", "fuse_teacher": 0.5, "next_step_accuracy": 1.0}
    assert numbers(fused, {}).keys() == {"fused/fuse_teacher", "fused/next_step_accuracy"}


def test_figures_that_are_not_known_are_left_out(line: Line, run: Path) -> None:
    (run / "generated.csv").unlink()
    evaluate(line, run)
    found = figures_of(sessions(run)[1])
    assert "next_step_accuracy" in found
    assert not found.keys() & RESEARCH


@pytest.mark.slow
def test_a_run_that_wandb_does_not_know_gets_one_there(
    line: Line, plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = Path(shutil.copytree(plain_run, tmp_path / "run"))
    evaluate(line, run)
    assert sessions(run) == []
    evaluate(line, run, "--wandb")
    evaluate(line, run, "--wandb")
    first, second = sessions(run)
    digest = json.loads((run / "evaluation.json").read_text())["model_digest"]
    assert first.run_id == second.run_id == digest[:8]
    assert figures_of(first) == figures_of(second)


def test_the_flag_goes_before_the_settings(line: Line, run: Path) -> None:
    evaluate(line, run, "--no-wandb")
    assert len(sessions(run)) == 1
    refused(trainer("evaluate", run, "--cache", line.cache, "--no-wandb", "--wandb-artifact"), "--wandb-artifact needs")


def test_a_missing_package_is_said_before_the_work(line: Line, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.evaluate.at_wandb.is_installed", lambda _: False)
    refused(trainer("evaluate", run, "--cache", line.cache), "needs wandb: pip install", "--no-wandb")
    assert not (run / "evaluation.json").exists()


def test_a_wandb_that_fails_takes_no_figures_away(line: Line, run: Path) -> None:
    settings = run / "config.yaml"
    settings.write_text(settings.read_text().replace("project: routes", "project: a/b"))  # W&B takes no such name
    said = evaluate(line, run).splitlines()
    assert said[-1].startswith("trainer: warning: W&B failed (")
    assert said[-1].endswith(f"; the figures are in {run / 'evaluation.json'}")
    assert (run / "evaluation.json").exists()
