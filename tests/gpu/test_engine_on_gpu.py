"""The engine on CUDA against the plain thing: each position alone, float64, on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.city import City
from bench.engine import REAL
from teacher_server.engine import Engine
from teacher_server.model import LMTAD
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import ScoreWork
from teacher_server.trips import sums_of_trips
from tests.teacher_server.scoring import (
    BLOCK_SIZE,
    SPECIAL,
    answer,
    oracle,
    packer,
    ragged_trips,
    tiny_model,
    trip_oracle,
    trips_of,
    works,
)

CUDA = torch.device("cuda")
MODEL = tiny_model()
TYPES = [(torch.float32, 1e-5), (torch.float16, 0.03), (torch.bfloat16, 0.25)]


@pytest.mark.parametrize(("dtype", "bound"), TYPES, ids=str)
@settings(max_examples=60, deadline=None)
@given(batch=st.lists(works(max_histories=3), min_size=1, max_size=4), budget=st.integers(1, 300))
def test_every_position_as_if_it_were_alone(
    dtype: torch.dtype, bound: float, batch: list[ScoreWork], budget: int
) -> None:
    engine = Engine(copy.deepcopy(MODEL), CUDA, dtype)
    for got, work in zip(answer(engine, packer(budget), batch), batch, strict=True):
        np.testing.assert_allclose(np.exp(got), np.exp(oracle(MODEL, work)), atol=bound, rtol=0)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float16, 0.2)], ids=str)
@settings(max_examples=30, deadline=None)
@given(trips=ragged_trips())
def test_likelihoods_of_whole_trips(dtype: torch.dtype, bound: float, trips: list[list[int]]) -> None:
    work = trips_of(trips)
    scores = work.score_work(BLOCK_SIZE, SPECIAL.eot)
    [got] = answer(Engine(copy.deepcopy(MODEL), CUDA, dtype), packer(), [scores])
    expected, tokens = trip_oracle(MODEL, trips)
    np.testing.assert_array_equal(scores.scored, tokens)
    np.testing.assert_allclose(sums_of_trips(got, scores.scored), expected, atol=bound, rtol=bound)


@pytest.mark.parametrize("window", [7, 0])
def test_a_teacher_of_real_size_says_what_it_says_on_a_cpu(window: int) -> None:
    model = LMTAD(REAL).eval().requires_grad_(False)
    model.initialise(torch.Generator().manual_seed(0))
    work = City(trips=16).work(0, 8, window)
    policy = Packer(REAL.block_size, REAL.vocab_size - 1, REAL.vocab_size - 3, 131_072)
    [expected] = answer_works(
        [work], policy, Engine(copy.deepcopy(model), torch.device("cpu"), torch.float32).log_probs
    )
    for dtype, bound in ((torch.float32, 1e-4), (torch.float16, 0.01), (torch.bfloat16, 0.05)):
        [got] = answer_works([work], policy, Engine(copy.deepcopy(model), CUDA, dtype).log_probs)
        np.testing.assert_allclose(got, expected, atol=bound, rtol=0, err_msg=str(dtype))


@pytest.mark.parametrize(("dtype", "bound"), TYPES[:2], ids=str)
def test_compiled_and_asked_from_another_thread(dtype: torch.dtype, bound: float) -> None:
    """As a server does it: sizes are rounded up, and one thread computes that is not the one that built."""
    engine = Engine(copy.deepcopy(MODEL), CUDA, dtype, compiled=True)
    policy = Packer(BLOCK_SIZE, SPECIAL.sot, SPECIAL.pad, 300, bucketed=True)
    rng = np.random.default_rng(0)
    with ThreadPoolExecutor(1) as thread:
        for histories in (1, 3, 9, 3, 1, 20):
            work = random_work(rng, histories)
            [got] = thread.submit(answer, engine, policy, [work]).result()
            np.testing.assert_allclose(np.exp(got), np.exp(oracle(MODEL, work)), atol=bound, rtol=0)


def test_memory_that_ends_is_told_and_given_back() -> None:
    engine = Engine(copy.deepcopy(MODEL), CUDA, torch.float32)
    small, large = (random_work(np.random.default_rng(0), histories) for histories in (2, 20_000))
    [before] = answer(engine, packer(), [small])
    with little_memory(), pytest.raises(MemoryError, match="memory"):
        answer(engine, packer(10**9), [large])
    [after] = answer(engine, packer(), [small])
    np.testing.assert_array_equal(after, before)


def random_work(rng: np.random.Generator, histories: int) -> ScoreWork:
    """All steps of histories as long as the block, three candidates each."""
    steps = histories * BLOCK_SIZE
    return ScoreWork(
        tokens=rng.integers(0, 20, steps).astype(np.int32),
        lengths=np.full(histories, BLOCK_SIZE),
        scored=np.full(histories, BLOCK_SIZE),
        windows=np.zeros(histories, np.int64),
        candidates=rng.integers(0, 20, 3 * steps).astype(np.int32),
        candidate_counts=np.full(steps, 3),
    )


@contextmanager
def little_memory() -> Iterator[None]:
    """8 MiB more than what is taken."""
    torch.cuda.empty_cache()
    most = torch.cuda.memory_reserved() + (8 << 20)
    torch.cuda.set_per_process_memory_fraction(most / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
