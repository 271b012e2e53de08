"""What the engine itself answers, for whoever wants to know whether a server's answer is right.

Of whole trips the oracle is what `teacher evaluate` computes, which shares no code with the server's engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from teacher_server.artifact import load_artifact
from teacher_server.engine import Engine
from teacher_server.fit.likelihood import likelihood
from teacher_server.fit.tokens import Trips
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import Floats, ScoreWork
from teacher_server.trips import TripWork


class Oracle:
    """The artifact's engine, in this process."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)  # the server wants the cores, too
        artifact = load_artifact(folder)
        special, self._cells = artifact.description.special, artifact.description.grid.cells
        self._special, self._model = special, artifact.build()
        self._engine = Engine(artifact.build(), torch.device("cpu"), torch.float32)
        self._packer = Packer(artifact.description.model.block_size, special.sot, special.pad, 100_000)

    def log_probs(self, work: ScoreWork) -> Floats:
        """[C] of the work's candidates. Raises ValueError for a work that the protocol does not allow."""
        sums = [int(each.sum()) for each in (work.lengths, work.scored, work.candidate_counts)]
        sizes = [len(work.tokens), len(work.candidate_counts), len(work.candidates)]
        cells = np.concatenate([work.tokens, work.candidates])
        if sums != sizes or not sums[1] or len(work.lengths) != len(work.scored):
            raise ValueError(f"sums of {sums}, but sizes of {sizes}")
        if (work.lengths < 1).any() or (work.scored > work.lengths).any() or (cells >= self._cells).any():
            raise ValueError("a history without a cell, more positions than cells, or no cell")
        return answer_works([work], self._packer, self._engine.log_probs)[0]

    def likelihoods(self, trips: TripWork) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """([B] log-likelihoods, [B] tokens). Raises ValueError for trips that the protocol does not allow."""
        if not len(trips.lengths) or (trips.lengths < 1).any() or trips.lengths.sum() != len(trips.tokens):
            raise ValueError("no trip, a trip without a cell, or lengths that do not fit the tokens")
        if (trips.tokens < 0).any() or (trips.tokens >= self._cells).any():
            raise ValueError("no cell")
        offsets = np.concatenate([[0], np.cumsum(trips.lengths)])
        found = likelihood(self._model, Trips(trips.tokens, offsets), self._special)
        return -found.nll, found.tokens


def same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Equal within the contract's tolerance, or that of half precision where the answer travelled so."""
    absolute, relative = (1e-3, 1e-3) if found.dtype == np.float16 else (1e-5, 2e-6)
    return found.shape == expected.shape and np.allclose(found, expected, atol=absolute, rtol=relative)
