"""Whole trips whose likelihood is asked, as score work, and its answer as sums. Pure numpy; knows token ids only.

A trip is read as SOT, its cells, EOT; each token but SOT is predicted from those before it, over the whole vocabulary.
A trip that does not fit the block size S (SOT and S - 1 cells) keeps its last S - 1 cells, as in `fit/sequences.py`.
Letters: B trips, C predicted tokens of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teacher_server.rows import Floats, Ints, ScoreWork, Tokens, ranges


@dataclass(frozen=True, eq=False)
class TripWork:
    """B trips (semantics: teacher.proto)."""

    tokens: Tokens  # [sum of lengths] cells, without SOT and EOT
    lengths: Ints  # [B], each >= 1

    @property
    def positions(self) -> int:
        """How many tokens, EOT included, are predicted if no trip is cut."""
        return len(self.tokens) + len(self.lengths)

    def kept(self, block_size: int) -> Ints:
        """[B] last cells of each trip that are read."""
        return np.minimum(self.lengths, block_size - 1)

    def truncated(self, block_size: int) -> int:
        """How many trips are cut."""
        return int(np.count_nonzero(self.lengths > block_size - 1))

    def score_work(self, block_size: int, eot: int) -> ScoreWork:
        """The trips' own next tokens as candidates, one a position: after SOT, after each cell that is read."""
        kept = self.kept(block_size)
        cells = self.tokens[ranges(np.cumsum(self.lengths) - kept, kept)]
        return ScoreWork(
            tokens=cells,
            lengths=kept,
            scored=kept + 1,
            windows=np.zeros(len(kept), np.int64),
            candidates=np.insert(cells, np.cumsum(kept), eot),
            candidate_counts=np.ones(len(cells) + len(kept), np.int64),
            over_vocabulary=True,
        )


def sums_of_trips(log_probs: Floats, counts: Ints) -> NDArray[np.float64]:
    """[B] from the log-probabilities [C] of the trips' tokens, `counts` of each trip, added up in float64."""
    return np.asarray(np.add.reduceat(log_probs, np.cumsum(counts) - counts, dtype=np.float64))
