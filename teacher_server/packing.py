"""Ragged score work -> right-padded batches under a token budget, and answers back in each work's order.

Pure numpy; knows token ids only. Letters: B histories, P scored positions and C candidates of a work;
R rows that answer it; N rows of width L, Q positions and K candidates of one batch; S block size.

A row is SOT, at index 0, and then consecutive tokens of one history. All scored positions whose window reaches
back to the start of the history share one row: attention is causal, so each of them sees exactly SOT and its own
prefix. Every later position has a row of its own: SOT and the last `window` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ScoreWork:
    """B histories, of each of which the last `scored` positions are scored (semantics: teacher.proto)."""

    tokens: Tokens  # [sum of lengths] cells, without SOT
    lengths: Ints  # [B], each >= 1
    scored: Ints  # [B], each in 0..length
    windows: Ints  # [B] last tokens that a position sees; 0: all
    candidates: Tokens  # [C] cells
    candidate_counts: Ints  # [P], P = sum of scored, C = sum of candidate_counts


@dataclass(frozen=True, eq=False)
class RowPlan:
    """How one work is answered: its rows, and where in them the answer of each computed position is read.

    Positions with no candidate have no answer and those with one have the answer 0: neither is computed.
    """

    tokens: Tokens  # the work's
    candidates: Tokens  # [C] the work's
    starts: Ints  # [R] index in `tokens` of the row's first token after SOT
    lengths: Ints  # [R] tokens of the row, SOT included, at most S
    rows: Ints  # [computed positions] row that is read
    columns: Ints  # [computed positions] column that is read
    candidate_starts: Ints  # [computed positions] index of the first candidate
    candidate_counts: Ints  # [computed positions], each >= 2
    truncated: int  # scored positions whose history was cut because it does not fit into S

    @property
    def row_tokens(self) -> int:
        """Tokens to compute, without padding."""
        return int(self.lengths.sum())


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """What the engine computes at once."""

    tokens: Tokens  # [N, L] SOT first, PAD on the right
    rows: Ints  # [Q]
    columns: Ints  # [Q]
    candidates: Tokens  # [K] cells, K = sum of candidate_counts
    candidate_counts: Ints  # [Q], each >= 2


@dataclass(frozen=True, eq=False)
class Pack:
    """Batches that together answer several works.

    A batch is built when it is asked for: padded, all of them together may be many times as large as the plan.
    """

    plan: RowPlan  # of all works in turn
    sizes: tuple[int, ...]  # C of each work
    sot: int
    pad: int
    order: Ints  # [R] the plan's rows by length
    positions: Ints  # [computed positions] the plan's positions in the order of their rows
    ranks: Ints  # [computed positions] place in `order` of the row of each of `positions`, ascending
    spans: tuple[tuple[int, int], ...]  # [begin, end) in `order` of each batch

    @property
    def batches(self) -> Iterator[PackedBatch]:
        """One batch after another, each built as it is taken."""
        return map(self._batch, self.spans)

    def answers(self, log_probs: Sequence[Floats]) -> list[Floats]:
        """Per work its [C] log-probabilities, from the [K] answers of each batch."""
        flat = np.zeros(sum(self.sizes), np.float32)
        for span, batch in zip(self.spans, log_probs, strict=True):
            flat[self._targets(self.positions[self._here(span)])] = batch
        return np.split(flat, np.cumsum(self.sizes)[:-1])

    def _batch(self, span: tuple[int, int]) -> PackedBatch:
        here = self._here(span)
        positions = self.positions[here]
        return PackedBatch(
            tokens=self._padded(self.order[slice(*span)]),
            rows=self.ranks[here] - span[0],
            columns=self.plan.columns[positions],
            candidates=self.plan.candidates[self._targets(positions)],
            candidate_counts=self.plan.candidate_counts[positions],
        )

    def _here(self, span: tuple[int, int]) -> slice:
        """The part of `positions` whose rows are in a span of `order`."""
        return slice(*np.searchsorted(self.ranks, span))

    def _targets(self, positions: Ints) -> Ints:
        """[K] place of each answer of these positions among the candidates of all works in turn."""
        return _ranges(self.plan.candidate_starts[positions], self.plan.candidate_counts[positions])

    def _padded(self, rows: Ints) -> Tokens:
        lengths = self.plan.lengths[rows]
        offsets = np.arange(lengths.max() - 1)
        inside = offsets < lengths[:, None] - 1
        tokens = np.full((len(rows), len(offsets) + 1), self.pad, np.int32)
        tokens[:, 0] = self.sot
        tokens[:, 1:][inside] = self.plan.tokens[(self.plan.starts[rows, None] + offsets)[inside]]
        return tokens


@dataclass(frozen=True)
class Packer:
    """The packing policy for one teacher. `token_budget` bounds N * L of a batch; one row alone may exceed it."""

    block_size: int  # S
    sot: int
    pad: int
    token_budget: int

    def __post_init__(self) -> None:
        if self.block_size < 2:
            raise ValueError(f"a block size of {self.block_size} has no room for SOT and a token")
        if self.token_budget < 1:
            raise ValueError(f"the token budget must be at least 1, got {self.token_budget}")

    def plan(self, work: ScoreWork) -> RowPlan:
        """The rows of one work."""
        room = self.block_size - 1
        history, last = _scored_positions(work)
        truncated = int(np.count_nonzero((last >= room) & _is_unbounded(work.windows, room)[history]))
        computed = np.flatnonzero(work.candidate_counts > 1)
        history, last = history[computed], last[computed]
        window = _kept(work.windows, room)[history]
        opens = _opens_row(history, last, window)
        columns = np.minimum(last + 1, window)
        first_tokens = (np.cumsum(work.lengths) - work.lengths)[history] + np.maximum(last - window + 1, 0)
        candidate_starts = np.cumsum(work.candidate_counts) - work.candidate_counts
        return RowPlan(
            tokens=work.tokens,
            candidates=work.candidates,
            starts=first_tokens[opens],
            lengths=columns[np.roll(opens, -1)] + 1,  # a row ends at the last position that reads it
            rows=np.cumsum(opens) - 1,
            columns=columns,
            candidate_starts=candidate_starts[computed],
            candidate_counts=work.candidate_counts[computed],
            truncated=truncated,
        )

    def pack(self, plans: Sequence[RowPlan]) -> Pack:
        """Rows of all plans, sorted by length, cut into batches under the token budget."""
        merged = _merge(plans)
        order = np.argsort(merged.lengths, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        ranks = rank[merged.rows]
        positions = np.argsort(ranks, kind="stable")
        return Pack(
            plan=merged,
            sizes=tuple(len(plan.candidates) for plan in plans),
            sot=self.sot,
            pad=self.pad,
            order=order,
            positions=positions,
            ranks=ranks[positions],
            spans=tuple(_spans(merged.lengths[order], self.token_budget)),
        )


def count_row_tokens(work: ScoreWork, block_size: int) -> int:
    """What `row_tokens` of the work's plan will be, for a small part of the plan's memory and time."""
    window = _kept(work.windows, block_size - 1)
    computed = np.flatnonzero(work.candidate_counts > 1)
    ends = np.cumsum(work.scored)
    begins = ends - work.scored
    alone = ends - np.minimum(work.scored, np.maximum(work.lengths - window, 0))  # first position with a row of its own
    first, shared, past = (np.searchsorted(computed, places) for places in (begins, alone, ends))
    row_ends = computed[shared[shared > first] - 1] + (work.lengths - ends)[shared > first]
    return int(((past - shared) * (window + 1)).sum() + (row_ends + 2).sum())


def _is_unbounded(windows: Ints, room: int) -> NDArray[np.bool_]:
    """Whether a history's positions want more tokens than a row has room for, if they have them."""
    return (windows == 0) | (windows > room)


def _kept(windows: Ints, room: int) -> Ints:
    """[B] tokens that a position of each history sees at most."""
    return np.where(_is_unbounded(windows, room), room, windows)


def _scored_positions(work: ScoreWork) -> tuple[Ints, Ints]:
    """([P] history, [P] index in it of its last token) of the scored positions."""
    history = np.repeat(np.arange(len(work.lengths)), work.scored)
    return history, (work.lengths - np.cumsum(work.scored))[history] + np.arange(len(history))


def _opens_row(history: Ints, last: Ints, window: Ints) -> NDArray[np.bool_]:
    """Whether a position opens a row of its own, or reads the one that the position before it reads."""
    opens = np.ones(len(history), bool)
    opens[1:] = (history[1:] != history[:-1]) | (last[1:] >= window[1:])
    return opens


def _merge(plans: Sequence[RowPlan]) -> RowPlan:
    """One plan over the tokens, rows and candidates of all plans in turn."""
    return RowPlan(
        tokens=np.concatenate([plan.tokens for plan in plans]),
        candidates=np.concatenate([plan.candidates for plan in plans]),
        starts=_shifted([plan.starts for plan in plans], [len(plan.tokens) for plan in plans]),
        lengths=np.concatenate([plan.lengths for plan in plans]),
        rows=_shifted([plan.rows for plan in plans], [len(plan.starts) for plan in plans]),
        columns=np.concatenate([plan.columns for plan in plans]),
        candidate_starts=_shifted([plan.candidate_starts for plan in plans], [len(plan.candidates) for plan in plans]),
        candidate_counts=np.concatenate([plan.candidate_counts for plan in plans]),
        truncated=sum(plan.truncated for plan in plans),
    )


def _shifted(parts: Sequence[Ints], sizes: Sequence[int]) -> Ints:
    """Indices into parts, one after another -> indices into the concatenation of parts of these sizes."""
    offsets = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([part + offset for part, offset in zip(parts, offsets, strict=True)])


def _spans(lengths: Ints, budget: int) -> Iterator[tuple[int, int]]:
    """Cut ascending row lengths into [begin, end) with (end - begin) * longest <= budget, or a single row."""
    begin = 0
    while begin < len(lengths):
        reach = lengths[begin : begin + budget // int(lengths[begin]) + 1]
        padded = reach * np.arange(1, len(reach) + 1)
        end = begin + max(int(np.searchsorted(padded, budget, side="right")), 1)
        yield begin, end
        begin = end


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """start, start + 1, ..., start + count - 1 for every pair, one after another."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
