"""Trip likelihoods and batches against slow, obvious versions of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_server.fit.likelihood import likelihood
from teacher_server.fit.sequences import IGNORED, budget_batches, epoch_batches, pad_batch
from teacher_server.fit.tokens import Trips
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.vocabulary import SpecialTokens

SPECIAL = SpecialTokens.after(12)
BLOCK = 6
MODEL = LMTAD(ModelConfig(BLOCK, 15, 2, 2, 8, dropout=0.5))
MODEL.initialise(torch.Generator().manual_seed(3))
with torch.no_grad():
    for parameter in MODEL.parameters():
        parameter.mul_(20.0)  # far from uniform

ragged = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=9), min_size=1, max_size=12)


def as_trips(cells: list[list[int]]) -> Trips:
    return Trips.of([np.array(trip, np.int32) for trip in cells])


def oracle(trip: list[int]) -> tuple[float, int]:
    """One trip, one position at a time, in float64 softmax: (sum, tokens)."""
    kept = trip[-(BLOCK - 1) :]
    total = 0.0
    for i, wanted in enumerate([*kept, SPECIAL.eot]):
        with torch.no_grad():
            scores = MODEL.logits(MODEL(torch.tensor([[SPECIAL.sot, *kept[:i]]])))[0, -1].double()
        total -= (scores[wanted] - scores.logsumexp(0)).item()
    return total, len(kept) + 1


@settings(max_examples=40, deadline=None)
@given(ragged, st.sampled_from([1, 7, 40, 4096]))
def test_likelihood_equals_one_position_at_a_time(cells: list[list[int]], budget: int) -> None:
    MODEL.eval()
    expected = [oracle(trip) for trip in cells]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("teacher_server.fit.likelihood.TOKEN_BUDGET", budget)
        patch.setattr("teacher_server.fit.likelihood.LOGITS_AT_ONCE", 15 * budget)
        found = likelihood(MODEL, as_trips(cells), SPECIAL)
    np.testing.assert_allclose(found.nll, [nll for nll, _ in expected], rtol=1e-4, atol=1e-4)
    assert found.tokens.tolist() == [tokens for _, tokens in expected]
    assert found.cut == sum(len(trip) > BLOCK - 1 for trip in cells)
    mean = sum(nll for nll, _ in expected) / sum(tokens for _, tokens in expected)
    assert found.perplexity == pytest.approx(math.exp(mean), rel=1e-3)


def test_likelihood_neither_drops_out_nor_leaves_training_mode() -> None:
    MODEL.train()
    trips = as_trips([[1, 2, 3], [4]])
    assert likelihood(MODEL, trips, SPECIAL).nll.tolist() == likelihood(MODEL, trips, SPECIAL).nll.tolist()
    assert MODEL.training


def test_padding() -> None:
    inputs, targets = pad_batch([np.array(t, np.int32) for t in ([1, 2], [3], [1, 2, 3, 4, 5, 6])], SPECIAL, BLOCK)
    pad, eot, sot, no = SPECIAL.pad, SPECIAL.eot, SPECIAL.sot, IGNORED
    assert inputs.tolist() == [[sot, 1, 2, pad, pad, pad], [sot, 3, pad, pad, pad, pad], [sot, 2, 3, 4, 5, 6]]
    assert targets.tolist() == [[1, 2, eot, no, no, no], [3, eot, no, no, no, no], [2, 3, 4, 5, 6, eot]]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 3))
def test_every_trip_once_an_epoch(lengths: list[int], batch_size: int, epoch: int) -> None:
    batches = epoch_batches(np.array(lengths), batch_size, 5, epoch)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == -(-len(lengths) // batch_size)
    again = epoch_batches(np.array(lengths), batch_size, 5, epoch)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]


def test_epochs_differ_and_batches_have_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    first, second = (epoch_batches(lengths, 20, 1, epoch) for epoch in (0, 1))
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    padded = sum(len(batch) * lengths[batch].max() for batch in first)
    assert padded < 1.1 * lengths.sum()


@given(st.lists(st.integers(1, 50), max_size=100), st.integers(2, 60), st.integers(1, 400))
def test_budget_batches_hold_the_budget(lengths: list[int], block: int, budget: int) -> None:
    batches = budget_batches(np.array(lengths, np.int64), block, budget)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        width = max(min(lengths[i] + 1, block) for i in batch)
        assert len(batch) == 1 or len(batch) * width <= budget
