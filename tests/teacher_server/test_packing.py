"""Rows, batches and the way back, without a model: what is computed is spelt out by a plain loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_server.packing import PackedBatch, Packer, answer_works, round_up
from teacher_server.rows import Floats, ScoreWork, count_row_tokens
from tests.teacher_server.scoring import BLOCK_SIZE, CELLS, SPECIAL, packer, work_of, works


def seen_contexts(batch: PackedBatch) -> list[tuple[int, ...]]:
    """What each position of a batch sees: the nodes that its own slot attends to, in the order of their depth."""
    tables = [(each.nodes, each.ends) for each in batch.bins]
    places = [(bin_, slot, *table) for table in tables for bin_, slot in np.ndindex(table[0].shape)]
    contexts = []
    for node in batch.reads[batch.positions]:
        bin_, slot, nodes, ends = places[batch.homes[node]]
        assert nodes[bin_, slot] == node
        seen = [nodes[bin_, other] for other in range(slot + 1) if slot < ends[bin_, other]]
        assert [batch.depths[other] for other in seen] == list(range(len(seen)))
        contexts.append(tuple(batch.tokens[seen].tolist()))
    return contexts


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


@pytest.mark.parametrize("bucketed", [False, True])
@given(st.lists(works(), min_size=1, max_size=4), st.integers(1, 200))
def test_every_position_sees_its_context_and_its_answers_return_to_it(
    bucketed: bool, batch: list[ScoreWork], budget: int
) -> None:
    policy = dataclasses.replace(packer(budget), bucketed=bucketed)
    # Each candidate's answer is a number that names its context and its cell.
    key: dict[tuple[int, ...], int] = {}

    def compute(packed: PackedBatch) -> Floats:
        contexts = [key.setdefault(context, len(key) + 1) for context in seen_contexts(packed)]
        return (np.repeat(contexts, packed.candidate_counts) * 100 + packed.candidates).astype(np.float32)

    for work, got in zip(batch, answer_works(batch, policy, compute), strict=True):
        contexts = iter(expected_contexts(work))
        want: list[int] = []
        for cells in np.split(work.candidates, np.cumsum(work.candidate_counts)[:-1]):
            context = key[next(contexts)] if len(cells) > 1 else 0
            want += [context * 100 + int(cell) if len(cells) > 1 else 0 for cell in cells]
        np.testing.assert_array_equal(got, want)


@given(st.lists(works(), min_size=1, max_size=4), st.integers(1, 200))
def test_batches_keep_to_the_budget_and_compute_nothing_twice(batch: list[ScoreWork], budget: int) -> None:
    policy = packer(budget)
    packs = [
        policy.pack([part]) for work in batch if (plan := policy.plan(work)).row_tokens for part in plan.parts(budget)
    ]
    for packed in packs:
        assert packed.row_tokens <= budget or packed.depths.max() + 1 == packed.row_tokens  # or a single row
        assert packed.depths.max() < BLOCK_SIZE
        assert len(packed.tokens) == packed.nodes <= packed.row_tokens
        assert packed.tokens[0] == SPECIAL.sot
        assert (packed.tokens[1:] < CELLS).all()
        assert (packed.candidate_counts >= 2).all()
        paths = {tuple(context[:end]) for context in seen_contexts(packed) for end in range(1, len(context) + 1)}
        assert packed.nodes == len(paths)  # every node leads to a position, and no two are the same prefix


def test_sizes_of_a_bucketed_batch_are_few() -> None:
    sizes = {round_up(n) for n in range(1, 5000)}
    assert len(sizes) < 42
    for n in range(1, 5000):
        assert n <= round_up(n) <= max(8, n * 1.25)
    work = work_of([[1, 2, 3, 4]], [[[1, 2]] * 4])
    plain = packer()
    assert len(plain.pack([plain.plan(work)]).tokens) == 5
    policy = dataclasses.replace(plain, bucketed=True)
    packed = policy.pack([policy.plan(work)])
    assert (len(packed.tokens), len(packed.reads), packed.nodes) == (8, 8, 5)


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
    def unused(packed: PackedBatch) -> Floats:
        raise AssertionError("nothing is computed")

    work = work_of([[5, 6, 7, 8]], [[[1], [], [3], [4]]], window=1)
    plan = packer().plan(work)
    assert plan.row_tokens == 0
    assert answer_works([work], packer(), unused)[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("window", "truncated"),
    [(0, 3), (BLOCK_SIZE, 3), (2**32 - 1, 3), (BLOCK_SIZE - 1, 0), (2, 0)],
)
def test_truncated_counts_positions_cut_by_the_block_size(window: int, truncated: int) -> None:
    length = BLOCK_SIZE - 1 + 3
    work = work_of([[1] * length, [2]], [[[1, 2]] * length, [[3, 4]]], window)
    assert packer().plan(work).truncated == truncated


def test_a_large_work_is_split_into_parts_that_share_what_they_can() -> None:
    histories = [[i % 5] * 6 for i in range(50)]
    work = work_of(histories, [[[1, 2]]] * 50)
    policy = packer(70)  # ten rows of seven tokens
    parts = policy.plan(work).parts(70)
    assert [len(part.lengths) for part in parts] == [10] * 5
    assert [policy.pack([part]).nodes for part in parts] == [7] * 5  # rows that are alike came together


def test_a_policy_needs_room_for_a_token() -> None:
    with pytest.raises(ValueError, match="block size of 1"):
        dataclasses.replace(packer(), block_size=1)
    with pytest.raises(ValueError, match="token budget"):
        Packer(8, 1, 2, token_budget=0)
