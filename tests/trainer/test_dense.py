"""The trainer's tensors against the server's reader of them, and the parts that long queries are cut into."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_server.dense import read_request, read_trips
from teacher_server.packing import Packer
from teacher_server.rows import ScoreWork
from tests.trainer.test_split import random_query
from trainer.teacher.dense import count_truncated, dense_parts, dense_query, dense_trip_parts, dense_trips
from trainer.teacher.protocol import Query, TripQuery

FIELDS = ("tokens", "lengths", "scored", "candidates", "counts")


def work_of(query: Query) -> ScoreWork:
    windows = np.full_like(query.lengths, query.window)
    return ScoreWork(query.tokens, query.lengths, query.scored, windows, query.candidates, query.counts)


@settings(deadline=None, database=None)
@given(st.integers(0, 2**32), st.integers(1, 25))
def test_the_server_reads_what_the_trainer_means(seed: int, histories: int) -> None:
    query = random_query(np.random.default_rng(seed), histories)
    if not len(query.candidates):
        return
    dense = dense_query(query)
    read = read_request(dense.tensors)
    for name, want in vars(work_of(query)).items():
        np.testing.assert_array_equal(getattr(read.work, name), want, name)
    np.testing.assert_array_equal(dense.filled, read.filled)
    flat = np.arange(len(query.candidates), dtype=np.float32)
    np.testing.assert_array_equal(read.log_probs(flat)[dense.filled], flat)


@settings(deadline=None, database=None)
@given(st.integers(0, 2**32), st.integers(1, 25), st.integers(1, 3000))
def test_parts_are_small_and_make_the_whole(seed: int, histories: int, max_bytes: int) -> None:
    query = random_query(np.random.default_rng(seed), histories)
    parts = list(dense_parts(query, max_bytes))
    for name in FIELDS:
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(query, name))
    for part in parts:
        if len(part.lengths) > 1 and len(part.candidates):
            assert sum(tensor.nbytes for tensor in dense_query(part).tensors.values()) <= max_bytes


@settings(deadline=None, database=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(2, 12))
def test_truncated_positions_are_those_that_the_server_counts(seed: int, histories: int, block_size: int) -> None:
    query = random_query(np.random.default_rng(seed), histories)
    plan = Packer(block_size, sot=3, pad=1, token_budget=64).plan(work_of(query))
    assert count_truncated(query, block_size) == plan.truncated


@settings(deadline=None, database=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), st.integers(1, 400))
def test_the_server_reads_the_trips_that_the_trainer_means(lengths: list[int], max_bytes: int) -> None:
    query = TripQuery(np.arange(sum(lengths), dtype=np.int32), np.array(lengths))
    parts = list(dense_trip_parts(query, max_bytes))
    read = [read_trips(dense_trips(part)) for part in parts]
    for name in ("tokens", "lengths"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in read]), getattr(query, name))
    for part in parts:
        if len(part.lengths) > 1:
            assert sum(tensor.nbytes for tensor in dense_trips(part).values()) <= max_bytes
