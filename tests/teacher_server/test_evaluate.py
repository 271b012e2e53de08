"""Evaluation finds outliers with a teacher that knows the trips, and hardly with one that does not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from teacher_server.artifact import Artifact, load_artifact
from teacher_server.errors import BadSettings
from teacher_server.evaluate.judge import evaluate
from teacher_server.evaluate.report import write_evaluation
from teacher_server.export import export_run
from teacher_server.fit.likelihood import likelihood
from teacher_server.fit.loop import fit, start_run
from teacher_server.fit.run import FitRun
from teacher_server.fit.settings import FitSettings
from teacher_server.fit.tokens import TokenFolder, open_tokens
from teacher_server.vocabulary import Grid
from tests.teacher_server.full_disk import files_end_at
from tests.teacher_server.token_folders import walks, write_tokens

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, TokenFolder]:
    folder = tmp_path_factory.mktemp("evaluate")
    counts = {"train": 300, "val": 60, "test": 200}
    write_tokens(
        folder / "data", {split: walks(n, seed, shortest=10) for seed, (split, n) in enumerate(counts.items())}
    )
    data, run = open_tokens(folder / "data"), FitRun(folder / "run")
    settings = FitSettings(1, 2, 32, epochs=10, batch_size=16, learning_rate=1e-2, dropout=0.0)
    fit(data, run, start_run(data, run, settings), CPU)
    export_run(folder / "run", folder / "teacher")
    return load_artifact(folder / "teacher"), data


def test_figures(fitted: tuple[Artifact, TokenFolder]) -> None:
    artifact, data = fitted
    result = evaluate(artifact, data, 0, CPU)
    special = artifact.description.special
    normal = likelihood(artifact.build(), data.trips("val"), special)
    scores = normal.nll / normal.tokens
    assert result.threshold == pytest.approx(np.mean(scores) + 3 * np.sqrt(np.mean((scores - np.mean(scores)) ** 2)))
    test = likelihood(artifact.build(), data.trips("test"), special)
    assert result.perplexity == pytest.approx(np.exp(test.nll.sum() / test.tokens.sum()))
    assert (result.trips, result.tokens) == (200, int(data.trips("test").lengths.sum()) + 200)
    assert [d.outliers for d in result.detections] == [10] * 6
    assert all(d.pr_auc > 0.2 for d in result.detections)  # chance: .05
    assert result.detections[1].pr_auc > 0.5
    for d in result.detections:
        total = d.precision + d.recall
        assert d.f1 == pytest.approx(2 * d.precision * d.recall / total if total else 0.0)


def test_the_seed_decides(fitted: tuple[Artifact, TokenFolder]) -> None:
    first, again, other = (evaluate(*fitted, seed, CPU) for seed in (1, 1, 2))
    assert first == again
    assert first.perplexity == other.perplexity
    assert [d.pr_auc for d in first.detections] != [d.pr_auc for d in other.detections]


def test_the_json_file(fitted: tuple[Artifact, TokenFolder], tmp_path: Path) -> None:
    result = evaluate(*fitted, 0, CPU)
    write_evaluation(result, tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text()) == json.loads(json.dumps(asdict(result)))
    with pytest.raises(BadSettings, match="cannot be written"):
        write_evaluation(result, tmp_path / "no/where.json")
    before = (tmp_path / "e.json").read_text()
    with (
        files_end_at(100),
        pytest.raises(BadSettings, match=r"e\.json: cannot be written \(File too large\): make room"),
    ):
        write_evaluation(result, tmp_path / "e.json")
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]
    assert (tmp_path / "e.json").read_text() == before


def test_tokens_of_another_grid(fitted: tuple[Artifact, TokenFolder], tmp_path: Path) -> None:
    other = Grid(37.0, 37.0105, -122.0, -121.9884, 0.001, 0.001, 11, 12)
    write_tokens(tmp_path, {split: walks(20, 0) for split in ("train", "val", "test")}, other)
    with pytest.raises(BadSettings, match=r"its grid has max_lng -121\.9884, but the teacher's has -121\.9885"):
        evaluate(fitted[0], open_tokens(tmp_path), 0, CPU)


def test_too_few_trips_to_alter(fitted: tuple[Artifact, TokenFolder], tmp_path: Path) -> None:
    write_tokens(tmp_path, {split: [[1, 2]] * 5 for split in ("train", "val", "test")})
    with pytest.raises(BadSettings, match="route_switch, level 3: only 0 of 5 trips can be altered"):
        evaluate(fitted[0], open_tokens(tmp_path), 0, CPU)
