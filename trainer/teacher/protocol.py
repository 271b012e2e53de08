"""What the trainer knows of a teacher, whatever protocol it speaks: `describe`, `score` and `likelihood`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.errors import TeacherMismatch
from trainer.grid import Grid

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """The largest request that a teacher takes."""

    sequences: int
    tokens: int
    positions: int
    candidates: int
    row_tokens: int  # to compute, see teacher.proto
    message_bytes: int

    def within(self, other: Limits) -> Limits:
        """What both teachers take."""
        return Limits(*map(min, astuple(self), astuple(other)))


@dataclass(frozen=True)
class Description:
    """Who a teacher is."""

    digest: str
    vocab_size: int
    cells: int
    pad: int
    eot: int
    sot: int
    block_size: int
    grid: Grid
    compute_type: str
    limits: Limits

    def check(self) -> None:
        """Raises TeacherMismatch when grid and vocabulary contradict each other."""
        if self.grid.cells != self.cells or self.vocab_size != self.cells + 3:
            raise TeacherMismatch(
                f"the teacher's grid has {self.grid.rows} x {self.grid.columns} = {self.grid.cells} cells, but its "
                f"vocabulary has {self.vocab_size} tokens of which {self.cells} are cells (and PAD, EOT, SOT expected)"
            )


@dataclass(frozen=True)
class Query:
    """B histories of grid tokens; of each the last `scored` positions are asked about. window 0: the whole prefix."""

    tokens: NDArray[np.int32]  # [sum of lengths]
    lengths: Ints  # [B]
    scored: Ints  # [B]
    window: int
    candidates: NDArray[np.int32]  # [sum of counts]
    counts: Ints  # [sum of scored]
    bulk: bool = False  # nobody waits: training goes first, and nobody else's rows share its batches


@dataclass(frozen=True)
class Answer:
    """Log-probabilities at temperature 1, in the order of the query's candidates."""

    log_probs: NDArray[np.float32]
    truncated: int  # positions whose history did not fit into the teacher's block


def joined(answers: Iterable[Answer]) -> Answer:
    """The answer to a query from those to its parts."""
    parts = list(answers)
    return Answer(np.concatenate([part.log_probs for part in parts]), sum(part.truncated for part in parts))


@dataclass(frozen=True)
class TripQuery:
    """B whole trips of grid tokens, without SOT and EOT; asked in bulk, so that training goes first."""

    tokens: NDArray[np.int32]  # [sum of lengths]
    lengths: Ints  # [B], each >= 1


@dataclass(frozen=True)
class Likelihoods:
    """How probable whole trips are over the teacher's full vocabulary, in the order of the query."""

    log_likelihoods: NDArray[np.float64]  # [B] natural logarithms, summed over tokens 1..EOT
    token_counts: Ints  # [B] how many these are
    truncated: int  # trips that did not fit into the teacher's block and were cut to their last tokens

    @property
    def scores(self) -> NDArray[np.float64]:
        """The anomaly score of each trip, [B]: mean negative log-likelihood of tokens 1..EOT."""
        return -self.log_likelihoods / self.token_counts

    @property
    def perplexity(self) -> float:
        """The exponential of the mean over all tokens of all trips."""
        return math.exp(min(-float(self.log_likelihoods.sum()) / float(self.token_counts.sum()), 700.0))


def joined_trips(answers: Iterable[Likelihoods]) -> Likelihoods:
    """The answer to a query about trips from those to its parts."""
    parts = list(answers)
    return Likelihoods(
        np.concatenate([part.log_likelihoods for part in parts]),
        np.concatenate([part.token_counts for part in parts]),
        sum(part.truncated for part in parts),
    )


class Teacher(Protocol):
    """A served teacher."""

    @property
    def description(self) -> Description: ...

    def score(self, query: Query) -> Answer:
        """Raises TeacherUnavailable when nobody answers, TeacherMismatch when another teacher does, and Stopped."""
        ...

    def likelihood(self, query: TripQuery) -> Likelihoods:
        """Raises as `score`, and BadInput where the teacher's server is too old to be asked."""
        ...

    def close(self) -> None: ...
