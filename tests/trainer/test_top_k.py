"""The candidate filter against a slow loop, and in training, which alone it concerns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.trainer.datasets import random_map, random_walks, small_city, trainer
from tests.trainer.test_features import inputs
from trainer.data.batches import collate
from trainer.data.features import IGNORED, Features, Labels, Network
from trainer.data.top_k import keep_nearest


def batch_of(seed: int, ties: bool) -> tuple[Features, Labels]:
    rng = np.random.default_rng(seed)
    road_map, _, _ = random_map(rng, 8, 40)
    trips = random_walks(rng, road_map, trips=4, longest=6)
    features, labels = inputs(Network.of(road_map), collate(trips, np.arange(4), 100))
    if ties:
        features.metric_distance.copy_((features.metric_distance / 2).round())
    return features, labels


@settings(deadline=None, max_examples=80, database=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.booleans())
def test_against_a_loop(seed: int, k: int, ties: bool) -> None:
    features, labels = batch_of(seed, ties)
    found, new, _ = keep_nearest(features, labels, k)
    trips, steps, width = features.candidates.shape
    assert found.candidates.shape == (trips, steps, min(k, width))
    assert torch.equal(new.seconds, labels.seconds)
    for b in range(trips):
        for t in range(steps):
            count = int(features.candidate_mask[b, t].sum())
            by_distance = sorted(range(count), key=lambda i: (float(features.metric_distance[b, t, i]), i))
            kept = sorted(by_distance[:k])
            old = int(labels.choice[b, t])
            assert found.candidate_mask[b, t].tolist() == [i < len(kept) for i in range(min(k, width))]
            for name in ("candidates", "metric_distance", "metric_angle"):
                before, after = getattr(features, name)[b, t], getattr(found, name)[b, t]
                assert after[: len(kept)].tolist() == before[kept].tolist(), name
            assert new.choice[b, t] == (kept.index(old) if old in kept else IGNORED)


@settings(deadline=None, max_examples=40, database=None)
@given(st.integers(0, 2**32), st.booleans())
def test_k_of_all_candidates_is_the_identity(seed: int, ties: bool) -> None:
    features, labels = batch_of(seed, ties)
    most = int(features.candidate_mask.sum(-1).max())
    for k in (most, features.candidates.shape[-1], 99):
        found, new, _ = keep_nearest(features, labels, k)
        width = found.candidates.shape[-1]
        mask = features.candidate_mask[..., :width]
        assert torch.equal(found.candidate_mask, mask)
        assert int(mask.sum()) == int(features.candidate_mask.sum())
        assert torch.equal(new.choice, labels.choice)
        for name in ("candidates", "metric_distance", "metric_angle"):
            assert torch.equal(getattr(found, name)[mask], getattr(features, name)[..., :width][mask]), name


def test_no_label_is_lost_when_the_nearest_is_always_taken() -> None:
    """Where the road taken is the nearest one, even k = 1 keeps every label: padding never comes before it."""
    features, labels = batch_of(7, ties=False)
    labelled = labels.choice != IGNORED
    nearest = features.metric_distance.masked_fill(~features.candidate_mask, torch.inf).argmin(-1)
    wished = Labels(torch.where(labelled, nearest, IGNORED), labels.seconds)
    _, new, _ = keep_nearest(features, wished, 1)
    assert labelled.sum() > 5
    assert torch.equal(new.choice, torch.where(labelled, 0, IGNORED))


def test_a_dropped_label_is_the_one_that_torch_ignores() -> None:
    assert IGNORED == -100


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run without the filter, with the nearest candidate only, and with more than there are."""
    root = tmp_path_factory.mktemp("runs")
    data = small_city(root / "city")
    found = {}
    for k in (0, 1, 99):
        found[k] = root / str(k)
        words = ("--data", data, "--cache", root / "cache", "--out", found[k], "--teacher", "uniform")
        flags = ("optimizer_config.max_epoch=1", f"data.candidate_top_k={k}")
        outcome = trainer("train", *words, *(word for flag in flags for word in ("--set", flag)))
        assert outcome.status == 0, outcome.err
    return found


def epoch_of(run: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if "val/next_step_acc" in line)


def test_a_k_beyond_all_degrees_trains_the_same_student_bit_for_bit(runs: dict[int, Path]) -> None:
    whole, same = (load_file(runs[k] / "checkpoints" / "best.safetensors") for k in (0, 99))
    assert all(torch.equal(same[name], value) for name, value in whole.items())


def test_only_training_is_filtered(runs: dict[int, Path]) -> None:
    """Labels are lost in training; validation and test have all steps and all choices."""
    plain, filtered = (epoch_of(runs[k]) for k in (0, 1))
    assert filtered["unlabelled"] > plain["unlabelled"] == 0
    assert filtered["train/choice_accuracy"] is None  # one candidate is no choice
    assert filtered["val/choice_accuracy"] < 1
    summaries = [json.loads((runs[k] / "summary.json").read_text()) for k in (0, 1)]
    for name in ("test_steps", "choice_steps", "steps_scored"):
        assert summaries[0][name] == summaries[1][name] > 0
