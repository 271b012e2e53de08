"""Cutting queries: parts re-joined are the whole, and no part exceeds a limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_server.admission import check_row_tokens, check_trip_limits
from teacher_server.limits import Limits as ServerLimits
from teacher_server.rows import ScoreWork, count_row_tokens
from teacher_server.trips import TripWork
from trainer.errors import BadInput
from trainer.grid import Grid
from trainer.teacher.protocol import Description, Limits, Query, TripQuery
from trainer.teacher.split import row_tokens, split_query, split_trips

LARGE = 1 << 30
GRID = Grid(0.0, 0.5, 0.0, 0.5, 1.0, 1.0, 1, 1)


def teacher(*caps: int, block_size: int = 9) -> Description:
    """A teacher with these limits; those that are left out are large."""
    limits = Limits(*caps, *[LARGE] * (6 - len(caps)))
    return Description("d", 4, 1, 1, 2, 3, block_size, GRID, "float32", limits)


def use(query: Query) -> tuple[int, int, int, int]:
    """What a query takes of each limit."""
    return len(query.lengths), len(query.tokens), int(query.scored.sum()), len(query.candidates)


def random_query(rng: np.random.Generator, histories: int) -> Query:
    lengths = rng.integers(1, 9, histories)
    scored = rng.integers(1, lengths + 1)
    counts = rng.integers(0, 5, scored.sum())
    tokens, candidates = (rng.integers(0, 99, n).astype(np.int32) for n in (lengths.sum(), counts.sum()))
    return Query(tokens, lengths, scored, int(rng.integers(0, 5)), candidates, counts)


def one_by_one(query: Query) -> list[tuple[int, int, int, int]]:
    """What each history takes of each limit, from loops."""
    uses, position = [], 0
    for length, scored in zip(query.lengths.tolist(), query.scored.tolist(), strict=True):
        uses.append((1, length, scored, int(query.counts[position : position + scored].sum())))
        position += scored
    return uses


@settings(deadline=None, max_examples=200, database=None)
@given(st.integers(0, 2**32), st.integers(1, 25), st.integers(1, 8), *[st.integers(8, 80)] * 2, st.integers(40, 100))
def test_parts_make_the_whole(
    seed: int, histories: int, sequences: int, tokens: int, positions: int, candidates: int
) -> None:
    query = random_query(np.random.default_rng(seed), histories)
    limits = (sequences, tokens, positions, candidates)
    parts = list(split_query(query, teacher(*limits)))
    for name in ("tokens", "lengths", "scored", "candidates", "counts"):
        whole = getattr(query, name)
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.dtype == whole.dtype
        assert np.array_equal(joined, whole), name
    uses, caps = one_by_one(query), limits
    first = 0
    for part in parts:
        assert part.window == query.window
        assert all(used <= cap for used, cap in zip(use(part), caps, strict=True))
        last = first + len(part.lengths)
        assert use(part) == tuple(map(sum, zip(*uses[first:last], strict=True)))
        if last < len(uses):  # not one history more would have fitted
            assert any(sum(u[i] for u in uses[first : last + 1]) > caps[i] for i in range(4))
        first = last


@pytest.mark.parametrize(
    "caps", [(5, 3, 9, 9), (5, 9, 1, 9), (5, 9, 9, 3), (0, 9, 9, 9), (5, 9, 9, 9, 4), (5, 9, 9, 9, 9, 1030)]
)
def test_a_history_that_alone_is_too_much(caps: tuple[int, ...]) -> None:
    tokens, candidates = np.zeros(6, np.int32), np.zeros(6, np.int32)
    query = Query(tokens, np.array([2, 4]), np.array([1, 2]), 0, candidates, np.array([2, 1, 3]))
    with pytest.raises(BadInput, match=r"a trip of [24] steps alone exceeds the teacher's limits"):
        list(split_query(query, teacher(*caps)))


def test_messages_stay_under_the_teachers_size() -> None:
    query = random_query(np.random.default_rng(1), 40)
    parts = list(split_query(query, teacher(LARGE, LARGE, LARGE, LARGE, LARGE, 1024 + 600)))
    assert len(parts) > 1
    for part in parts:
        sequences, tokens, positions, candidates = use(part)
        assert 8 * sequences + 4 * tokens + 2 * positions + 4 * candidates <= 600


def test_a_query_that_fits_stays_whole() -> None:
    query = random_query(np.random.default_rng(0), 20)
    (part,) = split_query(query, teacher(20, 10_000, 10_000, 10_000))
    assert use(part) == use(query)


@settings(deadline=None, max_examples=100, database=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), *[st.integers(1, 30)] * 4, st.integers(2, 12))
def test_parts_of_whole_trips_are_what_the_server_takes(
    lengths: list[int], sequences: int, tokens: int, positions: int, row_tokens: int, block_size: int
) -> None:
    query = TripQuery(np.arange(sum(lengths), dtype=np.int32), np.array(lengths))
    caps = (sequences, max(tokens, 9), max(positions, 10))
    rows = max(row_tokens, block_size)
    parts = list(split_trips(query, teacher(*caps, LARGE, rows, block_size=block_size)))
    for name in ("tokens", "lengths"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(query, name))
    limits = ServerLimits(*caps, max_row_tokens=rows)
    for part in parts:
        work = TripWork(part.tokens, part.lengths)
        check_trip_limits(work, limits)
        check_row_tokens(work.score_work(block_size, eot=2), block_size, limits)


@settings(deadline=None, max_examples=200, database=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(2, 12))
def test_the_server_computes_no_more_than_we_count(seed: int, histories: int, block_size: int) -> None:
    query = random_query(np.random.default_rng(seed), histories)
    work = ScoreWork(
        query.tokens,
        query.lengths,
        query.scored,
        np.full_like(query.lengths, query.window),
        query.candidates,
        query.counts,
    )
    counted = int(row_tokens(query, block_size).sum())
    assert count_row_tokens(work, block_size) <= counted
    cap = max(int(row_tokens(query, block_size).max()), counted // 2)
    limits = (LARGE, LARGE, LARGE, LARGE, cap)
    for part in split_query(query, teacher(*limits, block_size=block_size)):
        assert int(row_tokens(part, block_size).sum()) <= cap
