"""Score work -> the rows that answer it. Pure numpy; knows token ids only.

Letters: B histories, P scored positions and C candidates of a work; R rows that answer it, and Q positions that are
read in them; S block size.

A row is SOT, at index 0, and then consecutive tokens of one history. All scored positions whose window reaches
back to the start of the history share one row: attention is causal, so each of them sees exactly SOT and its own
prefix. Every later position has a row of its own: SOT and the last `window` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]

SORTED_TOKENS = 8  # by which rows are sorted: enough for windows, and whole prefixes differ soon


@dataclass(frozen=True, eq=False)
class ScoreWork:
    """B histories, of each of which the last `scored` positions are scored (semantics: teacher.proto)."""

    tokens: Tokens  # [sum of lengths] cells, without SOT
    lengths: Ints  # [B], each >= 1
    scored: Ints  # [B], each in 0..length
    windows: Ints  # [B] last tokens that a position sees; 0: all
    candidates: Tokens  # [C] cells
    candidate_counts: Ints  # [P], P = sum of scored, C = sum of candidate_counts
    # What a position's candidates are normalised over: all tokens, or the candidates themselves. Over all tokens, a
    # history may be scored at one position more than it has tokens: the first of them comes after SOT alone.
    over_vocabulary: bool = False


@dataclass(frozen=True, eq=False)
class RowPlan:
    """How a work, or a part of it, is answered: its rows, and where in them each computed position is read.

    Positions with no candidate have no answer and those with one, among candidates, have the answer 0: neither is
    computed.
    """

    tokens: Tokens  # the work's
    candidates: Tokens  # [C] the work's
    starts: Ints  # [R] index in `tokens` of the row's first token after SOT
    lengths: Ints  # [R] tokens of the row, SOT included, at most S
    rows: Ints  # [Q] row that is read, ascending
    columns: Ints  # [Q] column that is read
    candidate_starts: Ints  # [Q] index of the first candidate
    candidate_counts: Ints  # [Q], each >= 2, or >= 1 over the vocabulary
    over_vocabulary: bool  # the work's
    truncated: int  # scored positions of the work whose history was cut because it does not fit into S

    @cached_property
    def row_tokens(self) -> int:
        """Tokens of all rows: at most so many are computed."""
        return int(self.lengths.sum())

    def parts(self, token_budget: int) -> list[RowPlan]:
        """Plans of consecutive rows that hold at most `token_budget` tokens, or a single row."""
        if self.row_tokens <= token_budget:
            return [self]
        ends = np.cumsum(self.lengths)
        parts, begin = [], 0
        while begin < len(ends):
            used = ends[begin - 1] if begin else 0
            end = max(int(np.searchsorted(ends, used + token_budget, side="right")), begin + 1)
            parts.append(self._part(begin, end))
            begin = end
        return parts

    def _part(self, begin: int, end: int) -> RowPlan:
        here = slice(*np.searchsorted(self.rows, (begin, end)))
        return replace(
            self,
            starts=self.starts[begin:end],
            lengths=self.lengths[begin:end],
            rows=self.rows[here] - begin,
            columns=self.columns[here],
            candidate_starts=self.candidate_starts[here],
            candidate_counts=self.candidate_counts[here],
        )

    @cached_property
    def targets(self) -> Ints:
        """[K] place of each computed candidate among the work's."""
        return ranges(self.candidate_starts, self.candidate_counts)


def plan_rows(work: ScoreWork, block_size: int) -> RowPlan:
    """The rows of one work, in the order of its histories."""
    room = block_size - 1
    history, last = _scored_positions(work)
    truncated = int(np.count_nonzero((last >= room) & _is_unbounded(work.windows, room)[history]))
    computed = _computed(work)
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
        over_vocabulary=work.over_vocabulary,
        truncated=truncated,
    )


def sorted_rows(plan: RowPlan) -> RowPlan:
    """The plan with its rows in the order of their first tokens, so that rows that begin alike come together."""
    offsets = np.arange(SORTED_TOKENS)
    inside = offsets < plan.lengths[:, None] - 1
    first = np.where(inside, plan.tokens[np.where(inside, plan.starts[:, None] + offsets, 0)], -1).astype(np.int64)
    pairs = (first[:, 0::2] << 32) + first[:, 1::2]
    order = np.lexsort(pairs.T[::-1])
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    by_row = np.argsort(ranks[plan.rows], kind="stable")
    return replace(
        plan,
        starts=plan.starts[order],
        lengths=plan.lengths[order],
        rows=ranks[plan.rows][by_row],
        columns=plan.columns[by_row],
        candidate_starts=plan.candidate_starts[by_row],
        candidate_counts=plan.candidate_counts[by_row],
    )


def count_row_tokens(work: ScoreWork, block_size: int) -> int:
    """What `row_tokens` of the work's plan will be, for a small part of the plan's memory and time."""
    window = _kept(work.windows, block_size - 1)
    computed = _computed(work)
    ends = np.cumsum(work.scored)
    begins = ends - work.scored
    alone = ends - np.minimum(work.scored, np.maximum(work.lengths - window, 0))  # first position with a row of its own
    first, shared, past = (np.searchsorted(computed, places) for places in (begins, alone, ends))
    row_ends = computed[shared[shared > first] - 1] + (work.lengths - ends)[shared > first]
    return int(((past - shared) * (window + 1)).sum() + (row_ends + 2).sum())


def _computed(work: ScoreWork) -> Ints:
    """[Q] scored positions whose answer is not known beforehand."""
    return np.flatnonzero(work.candidate_counts > (0 if work.over_vocabulary else 1))


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


def ranges(starts: Ints, counts: Ints) -> Ints:
    """start, start + 1, ..., start + count - 1 for every pair, one after another."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())
