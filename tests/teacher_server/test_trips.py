"""Likelihoods of whole trips against the plain thing: one token at a time, float64, softmax over the vocabulary."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from teacher_server import engine as engine_module
from teacher_server.engine import Engine
from teacher_server.fit.likelihood import likelihood
from teacher_server.fit.tokens import Trips
from teacher_server.rows import ScoreWork, count_row_tokens
from teacher_server.trips import sums_of_trips
from tests.teacher_server.scoring import (
    BLOCK_SIZE,
    SPECIAL,
    answer,
    packer,
    ragged_trips,
    tiny_engine,
    tiny_model,
    trip_oracle,
    trips_of,
    work_of,
    works,
)

MODEL = tiny_model()
ENGINE = tiny_engine(MODEL)
LONG = [[3] * (BLOCK_SIZE + 4), [1, 2, 3], [1, 2, 3], [1, 2, 4, 5], [9]]


def work(trips: list[list[int]]) -> ScoreWork:
    return trips_of(trips).score_work(BLOCK_SIZE, SPECIAL.eot)


def sums(engine: Engine, trips: list[list[int]], budget: int = 256) -> NDArray[np.float64]:
    asked = work(trips)
    return sums_of_trips(answer(engine, packer(budget), [asked])[0], asked.scored)


@settings(max_examples=40, deadline=None)
@given(ragged_trips(), st.integers(1, 300))
def test_equals_one_token_at_a_time(trips: list[list[int]], budget: int) -> None:
    expected, counts = trip_oracle(MODEL, trips)
    assert work(trips).scored.tolist() == counts
    np.testing.assert_allclose(sums(ENGINE, trips, budget), expected, atol=1e-4, rtol=2e-6)


@settings(max_examples=40, deadline=None)
@given(ragged_trips())
def test_equals_what_teacher_evaluate_computes(trips: list[list[int]]) -> None:
    judged = likelihood(MODEL, Trips.of([np.array(trip, np.int32) for trip in trips]), SPECIAL)
    np.testing.assert_allclose(-sums(ENGINE, trips), judged.nll, atol=1e-4, rtol=2e-6)
    assert trips_of(trips).truncated(BLOCK_SIZE) == judged.cut
    assert work(trips).scored.tolist() == judged.tokens.tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(ragged_trips(3).map(work) | works(max_histories=3), min_size=2, max_size=4), st.integers(20, 300))
def test_batch_mates_of_either_kind_change_nothing(batch: list[ScoreWork], budget: int) -> None:
    for one, found in zip(batch, answer(ENGINE, packer(budget), batch), strict=True):
        np.testing.assert_allclose(found, answer(ENGINE, packer(10_000), [one])[0], atol=1e-5, rtol=2e-6)


@given(ragged_trips(), st.integers(1, 300))
def test_row_tokens_are_known_beforehand(trips: list[list[int]], budget: int) -> None:
    expected = sum(min(len(trip), BLOCK_SIZE - 1) + 1 for trip in trips)
    assert count_row_tokens(work(trips), BLOCK_SIZE) == packer(budget).plan(work(trips)).row_tokens == expected


def test_logits_are_held_a_tile_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No product of hidden states and tokens is larger than a tile, and tiles change nothing."""
    whole, largest = sums(ENGINE, LONG), 0
    monkeypatch.setitem(engine_module.TILES, "cpu", (3, 5))
    logsumexp = torch.Tensor.logsumexp

    def watched(logits: torch.Tensor, dim: int) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, logits.numel())
        return logsumexp(logits, dim)

    monkeypatch.setattr(torch.Tensor, "logsumexp", watched)
    np.testing.assert_allclose(sums(ENGINE, LONG), whole, rtol=1e-6)
    assert largest == 15


def test_the_same_token_after_the_same_tokens_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = []
    partition = ENGINE._log_partition

    def counted(hidden: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
        nodes.append((len(reads), len(reads.unique())))
        return partition(hidden, reads)

    monkeypatch.setattr(ENGINE, "_log_partition", counted)
    sums(ENGINE, [[1, 2, 3], [1, 2, 3], [1, 2, 4]])
    assert nodes == [(12, 5)]  # SOT, 1, 2, 3 and 4


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_half_precision_stays_near_and_below_certainty(dtype: torch.dtype, bound: float) -> None:
    engine = Engine(copy.deepcopy(MODEL), torch.device("cpu"), dtype)
    np.testing.assert_allclose(sums(engine, LONG), trip_oracle(MODEL, LONG)[0], rtol=bound)
    assert max(answer(engine, packer(), [work(LONG)])[0]) <= 0


def test_batches_of_few_sizes_change_nothing() -> None:
    asked = work(LONG)
    [found] = answer(ENGINE, dataclasses.replace(packer(), bucketed=True), [asked])
    np.testing.assert_allclose(sums_of_trips(found, asked.scored), trip_oracle(MODEL, LONG)[0], rtol=1e-5)


def test_candidates_beside_trips_are_still_normalised_among_themselves() -> None:
    asked = work_of([[1, 2]], [[[3, 4], [5, 5]]])
    found, _ = answer(ENGINE, packer(), [asked, work(LONG)])
    np.testing.assert_allclose(np.add.reduceat(np.exp(found), [0, 2]), 1.0, rtol=1e-6)
