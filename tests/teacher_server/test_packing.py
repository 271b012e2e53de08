"""Rows, batches and the way back, without a model: what is computed is spelt out by a plain loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_server.packing import PackedBatch, Packer, ScoreWork, count_row_tokens
from tests.teacher_server.scoring import BLOCK_SIZE, CELLS, SPECIAL, packer, work_of, works


def seen_contexts(batch: PackedBatch) -> list[tuple[int, ...]]:
    """What each position of a batch sees: its row up to the column that is read."""
    rows = zip(batch.rows, batch.columns, strict=True)
    return [tuple(batch.tokens[row, : column + 1].tolist()) for row, column in rows]


def expected_contexts(work: ScoreWork) -> list[tuple[int, ...]]:
    """SOT and the last tokens, for every position with two or more candidates, in the work's order."""
    room = BLOCK_SIZE - 1
    contexts = []
    histories = np.split(work.tokens, np.cumsum(work.lengths)[:-1])
    for history, scored, window in zip(histories, work.scored, work.windows, strict=True):
        kept = min(window or room, room)
        for end in range(len(history) - scored + 1, len(history) + 1):
            contexts.append((SPECIAL.sot, *history[max(end - kept, 0) : end].tolist()))
    return [c for c, count in zip(contexts, work.candidate_counts, strict=True) if count > 1]


@given(st.lists(works(), min_size=1, max_size=4), st.integers(1, 200))
def test_every_position_sees_its_context_and_its_answers_return_to_it(batch: list[ScoreWork], budget: int) -> None:
    policy = packer(budget)
    pack = policy.pack([policy.plan(work) for work in batch])
    # Each candidate's answer is a number that names its context and its cell.
    key: dict[tuple[int, ...], int] = {}
    answers = []
    for packed in pack.batches:
        contexts = [key.setdefault(context, len(key) + 1) for context in seen_contexts(packed)]
        answers.append((np.repeat(contexts, packed.candidate_counts) * 100 + packed.candidates).astype(np.float32))
    for work, got in zip(batch, pack.answers(answers), strict=True):
        contexts = iter(expected_contexts(work))
        want: list[int] = []
        for cells in np.split(work.candidates, np.cumsum(work.candidate_counts)[:-1]):
            context = key[next(contexts)] if len(cells) > 1 else 0
            want += [context * 100 + int(cell) if len(cells) > 1 else 0 for cell in cells]
        np.testing.assert_array_equal(got, want)


@given(st.lists(works(), min_size=1, max_size=4), st.integers(1, 200))
def test_batches_keep_to_the_budget_and_rows_to_their_shape(batch: list[ScoreWork], budget: int) -> None:
    policy = packer(budget)
    for packed in policy.pack([policy.plan(work) for work in batch]).batches:
        rows, width = packed.tokens.shape
        assert rows * width <= budget or rows == 1
        assert width <= BLOCK_SIZE
        assert (packed.tokens[:, 0] == SPECIAL.sot).all()
        lengths = np.zeros(rows, int)
        np.maximum.at(lengths, packed.rows, packed.columns + 1)
        assert lengths.max() == width  # no column that nothing reads
        padding = np.arange(width) >= lengths[:, None]
        assert (packed.tokens[padding] == SPECIAL.pad).all()
        assert (packed.tokens[:, 1:][~padding[:, 1:]] < CELLS).all()  # read positions never see a special token
        assert (packed.candidate_counts >= 2).all()


def test_a_whole_trip_is_one_row() -> None:
    history = list(range(BLOCK_SIZE - 1))
    plan = packer().plan(work_of([history], [[[1, 2]] * len(history)]))
    assert plan.lengths.tolist() == [BLOCK_SIZE]
    assert plan.columns.tolist() == list(range(1, BLOCK_SIZE))
    assert plan.truncated == 0


@given(works())
def test_row_tokens_are_counted_without_the_plan(work: ScoreWork) -> None:
    assert count_row_tokens(work, BLOCK_SIZE) == packer().plan(work).row_tokens


def test_windows_that_reach_the_start_share_a_row() -> None:
    plan = packer().plan(work_of([[5, 6, 7, 8, 9]], [[[1, 2]] * 5], window=3))
    assert plan.lengths.tolist() == [4, 4, 4]
    assert plan.starts.tolist() == [0, 1, 2]
    assert plan.rows.tolist() == [0, 0, 0, 1, 2]


def test_positions_without_a_choice_cost_nothing() -> None:
    plan = packer().plan(work_of([[5, 6, 7, 8]], [[[1], [], [3], [4]]], window=1))
    assert plan.row_tokens == 0
    pack = packer().pack([plan])
    assert list(pack.batches) == []
    assert [a.tolist() for a in pack.answers([])] == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("window", "truncated"),
    [(0, 3), (BLOCK_SIZE, 3), (2**32 - 1, 3), (BLOCK_SIZE - 1, 0), (2, 0)],
)
def test_truncated_counts_positions_cut_by_the_block_size(window: int, truncated: int) -> None:
    length = BLOCK_SIZE - 1 + 3
    work = work_of([[1] * length, [2]], [[[1, 2]] * length, [[3, 4]]], window)
    assert packer().plan(work).truncated == truncated


def test_a_large_work_is_split_over_batches() -> None:
    work = work_of([[3] * 12] * 50, [[[1, 2]]] * 50)
    policy = packer(BLOCK_SIZE * 8)
    pack = policy.pack([policy.plan(work)])
    assert [len(batch.tokens) for batch in pack.batches] == [8, 8, 8, 8, 8, 8, 2]


def test_a_policy_needs_room_for_a_token() -> None:
    with pytest.raises(ValueError, match="block size of 1"):
        dataclasses.replace(packer(), block_size=1)
    with pytest.raises(ValueError, match="token budget"):
        Packer(8, 1, 2, token_budget=0)
