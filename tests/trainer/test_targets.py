"""What is asked of a teacher and where its answers go, against slow loops over trips and steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import random_map, random_walks, road_map_of, trips_of
from tests.trainer.test_features import inputs
from trainer.data.batches import collate
from trainer.data.features import Features, Labels, Network
from trainer.data.top_k import keep_nearest
from trainer.grid import Grid
from trainer.teacher.protocol import Answer, Description, Limits, Query
from trainer.teacher.targets import TeacherTargets, UniformTargets, asked_steps, make_query, same_cell, split_shared

CELLS = 5
TRIPS = np.arange(4)


@dataclass
class NumberedTeacher:
    """Answers with a number for each candidate that was asked about, first to last; keeps the query."""

    queries: list[Query] = field(default_factory=list)

    @property
    def description(self) -> Description:
        grid = Grid(0.0, 1.0, 0.0, 1.0, 1.0, 0.25, 1, CELLS)
        return Description("d", CELLS + 3, CELLS, 5, 6, 7, 9, grid, "float32", Limits(9, 9, 9, 9, 9, 9))

    def score(self, query: Query) -> Answer:
        self.queries.append(query)
        return Answer(-np.arange(len(query.candidates), dtype=np.float32), truncated=3)

    def close(self) -> None:
        pass


def question_of(seed: int) -> tuple[Features, Labels, np.ndarray]:
    """Features of random walks, dead ends among them, and a random road-to-token map of few cells."""
    rng = np.random.default_rng(seed)
    road_map, _, _ = random_map(rng, 9, 25)
    trips = random_walks(rng, road_map, trips=4, longest=6)
    features, labels = inputs(Network.of(road_map), collate(trips, np.arange(4), 100))
    return features, labels, rng.integers(0, CELLS, road_map.roads).astype(np.int32)


def batch_of(seed: int, top_k: int = 0) -> tuple[Features, np.ndarray]:
    features, labels, road_to_token = question_of(seed)
    return keep_nearest(features, labels, top_k or 99)[0], road_to_token


def candidates_of(features: Features, b: int, t: int) -> list[int]:
    mask = features.candidate_mask[b, t]
    return features.candidates[b, t][mask].tolist()


@settings(deadline=None, max_examples=80, database=None)
@given(st.integers(0, 2**32), st.sampled_from(["all", "last"]), st.sampled_from([0, 1, 2]), st.integers(0, 4))
def test_the_query_and_the_places_of_its_answers(seed: int, positions: str, top_k: int, window: int) -> None:
    features, road_to_token = batch_of(seed, top_k)
    teacher = NumberedTeacher()
    target = TeacherTargets(teacher, road_to_token, window=window, positions=positions).of(TRIPS, features)
    tokens, scored, counts, asked_of = [], [], [], []
    expected = torch.full(features.candidates.shape, -math.inf)
    tied = 0
    for b, steps in enumerate(features.steps.tolist()):
        tokens += [int(road_to_token[road]) for road in features.roads[b, :steps]]
        wanted = range(steps) if positions == "all" else [steps - 1]
        scored.append(len(wanted))
        for t in wanted:
            cells = [int(road_to_token[road]) for road in candidates_of(features, b, t)]
            counts.append(len(cells))
            for k in range(len(cells)):
                expected[b, t, k] = -float(len(asked_of) + k)
            asked_of += cells
            tied += len(set(cells)) < len(cells)
            assert bool(target.asked[b, t]) == bool(cells)
    (query,) = teacher.queries
    assert (query.tokens.dtype, query.candidates.dtype) == (np.int32, np.int32)
    assert query.tokens.tolist() == tokens
    assert query.lengths.tolist() == features.steps.tolist()
    assert query.scored.tolist() == scored
    assert query.window == window
    assert query.counts.tolist() == counts
    assert query.candidates.tolist() == asked_of
    assert target.log_probs.dtype == torch.float32
    assert torch.equal(target.log_probs, expected)
    assert int(target.asked.sum()) == sum(count > 0 for count in counts)
    assert (target.truncated, int(target.tied(features.candidate_mask).sum())) == (3, tied)


def dead_end_batch() -> Features:
    road_map, _ = road_map_of([[(0.0, 0.0), (0.0, 1.0)]] * 3, [(0, 1), (0, 2)])
    return inputs(Network.of(road_map), collate(trips_of([[0, 1, 2], [1, 0]], [[0, 1, 2], [0, 1]]), np.arange(2), 9))[0]


@pytest.mark.parametrize(
    ("positions", "asked", "counts"),
    [("all", [[True, False], [False, False]], [2, 0, 0]), ("last", [[False, False], [False, False]], [0, 0])],
)
def test_a_dead_end_is_part_of_the_history_and_asks_nothing(
    positions: str, asked: list[list[bool]], counts: list[int]
) -> None:
    features, token = dead_end_batch(), torch.tensor([0, 1, 2])
    found = asked_steps(features, positions)
    assert found.tolist() == asked
    query = make_query(features, found, token, token[features.candidates], 0, positions)
    assert query.tokens.tolist() == [0, 1, 1]
    assert query.counts.tolist() == counts
    target = TeacherTargets(NumberedTeacher(), np.array([0, 1, 2], np.int32), positions=positions).of(TRIPS, features)
    assert not torch.isnan(target.log_probs).any()


@settings(deadline=None, max_examples=40, database=None)
@given(st.integers(0, 2**32), st.sampled_from(["all", "last"]))
def test_the_uniform_control(seed: int, positions: str) -> None:
    features, _ = batch_of(seed)
    target = UniformTargets(positions).of(TRIPS, features)
    for b, steps in enumerate(features.steps.tolist()):
        for t in range(features.roads.shape[1]):
            count = len(candidates_of(features, b, t))
            assert bool(target.asked[b, t]) == (count > 0 and t < steps and (positions == "all" or t == steps - 1))
            expected = [-math.log(count or 1)] * count + [-math.inf] * (features.candidates.shape[2] - count)
            assert target.log_probs[b, t].tolist() == pytest.approx(expected, rel=1e-6)
    assert not target.tied(features.candidate_mask).any()
    assert target.truncated == 0


steps_of_cells = st.lists(st.lists(st.tuples(st.integers(0, 3), st.floats(-60, 0)), max_size=5), min_size=1, max_size=6)


@settings(deadline=None, max_examples=100, database=None)
@given(steps_of_cells)
def test_shared_cells_share_the_mass(steps: list[list[tuple[int, float]]]) -> None:
    """Every candidate of a cell comes with the cell's mass; afterwards each has an equal part, and all sum to one."""
    width = 5
    cells = torch.zeros(1, len(steps), width, dtype=torch.int64)
    slots = torch.zeros(1, len(steps), width, dtype=torch.bool)
    log_probs = torch.full((1, len(steps), width), -math.inf)
    for t, step in enumerate(steps):
        mass = dict(step)  # one log-probability a cell
        for k, (cell, _) in enumerate(step):
            cells[0, t, k], slots[0, t, k], log_probs[0, t, k] = cell, True, mass[cell]
    share = split_shared(log_probs, cells, slots)
    counts = same_cell(cells, slots)
    for t, step in enumerate(steps):
        mass = dict(step)
        total = sum(math.exp(x) for x in mass.values())
        for k in range(width):
            if k >= len(step):
                assert share[0, t, k] == -math.inf
                continue
            mates = sum(cell == step[k][0] for cell, _ in step)
            assert counts[0, t, k] == mates
            assert math.exp(share[0, t, k]) == pytest.approx(math.exp(mass[step[k][0]]) / mates / total, rel=2e-5)
        if step:
            assert share[0, t].exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_ties_and_their_split_concern_the_candidates_that_are_left() -> None:
    """First the filter, then the shared-cell rule."""
    features, labels, road_to_token = question_of(0)
    target = TeacherTargets(NumberedTeacher(), road_to_token).of(TRIPS, features)
    fewer, _, kept = keep_nearest(features, labels, 2)
    assert kept is not None
    left = target.filtered(kept)
    cells = torch.from_numpy(road_to_token.astype(np.int64))[fewer.candidates]
    assert torch.equal(left.log_probs, target.log_probs.gather(-1, kept))
    assert torch.equal(left.split(fewer.candidate_mask), split_shared(left.log_probs, cells, fewer.candidate_mask))
    both = fewer.candidate_mask.all(-1)
    assert torch.equal(left.tied(fewer.candidate_mask), (cells[..., 0] == cells[..., 1]) & both)
    assert 0 < left.tied(fewer.candidate_mask).sum() < target.tied(features.candidate_mask).sum()
