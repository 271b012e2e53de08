"""Rows of works -> batches under a token budget, and answers back in each work's order.

Pure numpy; knows token ids only. Letters: R rows, M nodes, U reads, Q positions and K candidates of one batch; C
candidates of a work. What rows of a batch have in common is computed once (trie.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from teacher_server.rows import (
    Floats,
    Ints,
    RowPlan,
    ScoreWork,
    Tokens,
    plan_rows,
    ranges,
    sorted_rows,
)
from teacher_server.trie import Bins, build_trie, cut_into_bins, find_homes, rank_by_length


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """What the engine computes at once: the trie of some rows, and what is read in it."""

    tokens: Tokens  # [M] of each node
    depths: Tokens  # [M] column of each node in its row: its position for the model
    bins: tuple[Bins, ...]  # where nodes meet those that they attend to
    homes: Ints  # [M] slot, counted through all bins, that holds a node's own attention
    reads: Ints  # [U] nodes that are read, ascending
    positions: Ints  # [Q] index in `reads` of each position's node
    candidates: Tokens  # [K] cells, K = sum of candidate_counts
    candidate_counts: Ints  # [Q], each >= 1
    over_vocabulary: NDArray[np.bool_]  # [Q] whether candidates are normalised over all tokens, not among themselves
    row_tokens: int  # of all rows, each by itself
    nodes: int  # of `tokens`, those that are no padding


@dataclass(frozen=True)
class Packer:
    """The packing policy for one teacher. `token_budget` bounds the row tokens of a batch; one row may exceed it.

    With `bucketed`, the numbers of nodes and of reads are rounded up to a few sizes, so that a compiled engine
    meets the same shapes again and again.
    """

    block_size: int  # S
    sot: int
    pad: int
    token_budget: int
    bucketed: bool = False

    def __post_init__(self) -> None:
        if self.block_size < 2:
            raise ValueError(f"a block size of {self.block_size} has no room for SOT and a token")
        if self.token_budget < 1:
            raise ValueError(f"the token budget must be at least 1, got {self.token_budget}")

    def plan(self, work: ScoreWork) -> RowPlan:
        """The rows of one work. If they need several batches, rows that begin alike come together."""
        plan = plan_rows(work, self.block_size)
        return plan if plan.row_tokens <= self.token_budget else sorted_rows(plan)

    def pack(self, parts: Sequence[RowPlan]) -> PackedBatch:
        """One batch of all rows of some plans; its [K] answers are those of the plans in turn."""
        lengths = np.concatenate([part.lengths for part in parts])
        tokens = [part.tokens[ranges(part.starts, part.lengths - 1)] for part in parts]
        trie, offsets, nodes = build_trie(
            np.concatenate(tokens), np.cumsum(lengths - 1) - (lengths - 1), lengths, self.sot
        )
        rows = _shifted([part.rows for part in parts], [len(part.lengths) for part in parts])
        columns = np.concatenate([part.columns for part in parts])
        reads, positions = np.unique(nodes[offsets[columns] + rank_by_length(lengths)[rows]], return_inverse=True)
        bins = list(cut_into_bins(trie))
        batch = PackedBatch(
            tokens=trie.tokens,
            depths=trie.depths.astype(np.int32),
            bins=tuple(bins),
            homes=find_homes(bins, trie),
            reads=reads,
            positions=positions,
            candidates=np.concatenate([part.candidates[part.targets] for part in parts]),
            candidate_counts=np.concatenate([part.candidate_counts for part in parts]),
            over_vocabulary=np.repeat(
                [part.over_vocabulary for part in parts], [len(part.candidate_counts) for part in parts]
            ),
            row_tokens=int(lengths.sum()),
            nodes=len(trie.tokens),
        )
        return _rounded_up(batch, self.pad) if self.bucketed else batch


def answer_works(works: Sequence[ScoreWork], packer: Packer, compute: Callable[[PackedBatch], Floats]) -> list[Floats]:
    """Per work its [C] log-probabilities: all works packed together, one batch after the other."""
    plans = [packer.plan(work) for work in works]
    answers = [np.zeros(len(work.candidates), np.float32) for work in works]
    waiting = [
        (answer, part)
        for answer, plan in zip(answers, plans, strict=True)
        if plan.row_tokens
        for part in plan.parts(packer.token_budget)
    ]
    for group in _groups(waiting, packer.token_budget):
        log_probs = compute(packer.pack([part for _, part in group]))
        ends = np.cumsum([len(part.targets) for _, part in group])
        for (answer, part), found in zip(group, np.split(log_probs, ends[:-1]), strict=True):
            answer[part.targets] = found
    return answers


def _groups(waiting: Sequence[tuple[Floats, RowPlan]], token_budget: int) -> Iterator[list[tuple[Floats, RowPlan]]]:
    group: list[tuple[Floats, RowPlan]] = []
    for each in waiting:
        if group and sum(part.row_tokens for _, part in [*group, each]) > token_budget:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def round_up(size: int) -> int:
    """The next of 8, 10, 12, 14, 16, 20, 24, 28, 32, ...: four sizes an octave, so at most a quarter is padding."""
    step = 1 << max(size - 1, 7).bit_length() - 3
    return max(-(-size // step) * step, 8)


def _rounded_up(batch: PackedBatch, pad: int) -> PackedBatch:
    """The batch with padding behind its nodes and reads; nothing attends to it, and no position reads it."""
    nodes, reads = len(batch.tokens), len(batch.reads)
    more = round_up(nodes) - nodes
    return replace(
        batch,
        tokens=np.pad(batch.tokens, (0, more), constant_values=pad),
        depths=np.pad(batch.depths, (0, more)),
        homes=np.pad(batch.homes, (0, more)),
        reads=np.pad(batch.reads, (0, round_up(reads) - reads)),
    )


def _shifted(parts: Sequence[Ints], sizes: Sequence[int]) -> Ints:
    """Indices into parts, one after another -> indices into the concatenation of parts of these sizes."""
    offsets = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([part + offset for part, offset in zip(parts, offsets, strict=True)])
