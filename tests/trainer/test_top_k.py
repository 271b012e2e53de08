"""The candidate filter against a slow loop."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import random_map, random_walks
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
