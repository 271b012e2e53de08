"""Parts of an example: every trip once, little padding, the same figures."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import random_map, random_walks
from trainer.clock import Clock
from trainer.data.features import Network
from trainer.data.trips import Trips
from trainer.examples import Example, ExampleMaker
from trainer.micro_batches import parts_by_length
from trainer.teacher.targets import Target


def example_of(rng: np.random.Generator, trips: int, longest: int) -> tuple[Trips, Example]:
    """Guided, with answers and cells that tell every candidate from every other."""
    road_map, _, _ = random_map(rng, 30, 60)
    walks = random_walks(rng, road_map, trips, longest)
    maker = ExampleMaker(Network.of(road_map), torch.device("cpu"), 1024, "original", Clock())
    made = maker.make(walks, np.arange(trips))
    shape = made.features.candidates.shape
    cells = torch.arange(made.features.candidates.numel()).view(shape)
    target = Target(-cells.float(), made.features.candidate_mask.any(-1), cells, truncated=3)
    return walks, Example(made.features, made.labels, target, missed=2)


@settings(deadline=None, max_examples=60, database=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(3, 20), st.integers(1, 60))
def test_every_trip_is_in_one_part_whole(seed: int, trips: int, longest: int, limit: int) -> None:
    walks, whole = example_of(np.random.default_rng(seed), trips, longest)
    parts = parts_by_length(whole, limit)
    seen = []
    for part in parts:
        steps = part.features.steps.tolist()
        count, width = part.features.roads.shape
        assert width == max(steps)
        assert count == 1 or count * width <= limit
        assert steps == sorted(steps, reverse=True)
        assert part.target is not None
        assert part.target.cells is not None
        for row, n in enumerate(steps):
            # The cell of the first slot says which trip this is.
            trip = int(part.target.cells[row, 0, 0]) // whole.features.candidates[0].numel()
            seen.append(trip)
            assert n == len(walks.roads_of(trip)) - 1
            for ours, theirs in (
                (part.features.roads, whole.features.roads),
                (part.features.temporal_info, whole.features.temporal_info),
                (part.features.candidates, whole.features.candidates),
                (part.features.candidate_mask, whole.features.candidate_mask),
                (part.features.metric_distance, whole.features.metric_distance),
                (part.features.metric_angle, whole.features.metric_angle),
                (part.labels.choice, whole.labels.choice),
                (part.labels.seconds, whole.labels.seconds),
                (part.target.log_probs, whole.target.log_probs),  # type: ignore[union-attr]
                (part.target.asked, whole.target.asked),  # type: ignore[union-attr]
            ):
                assert torch.equal(ours[row, :n], theirs[trip, :n])
            assert part.features.destination[row] == whole.features.destination[trip]
            assert torch.equal(part.features.distance[row, :n, :n], whole.features.distance[trip, :n, :n])
            assert torch.equal(part.features.interval[row, :n, :n], whole.features.interval[trip, :n, :n])
    assert sorted(seen) == list(range(trips))
    assert sum(part.missed for part in parts) == 2
    assert sum(part.target.truncated for part in parts if part.target) == 3


def test_parts_without_a_target() -> None:
    _, whole = example_of(np.random.default_rng(0), 6, 9)
    parts = parts_by_length(Example(whole.features, whole.labels, None), 10)
    assert len(parts) > 1
    assert all(part.target is None for part in parts)
