"""What the engine itself answers, for whoever wants to know whether a server's answer is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from teacher_server.artifact import load_artifact
from teacher_server.engine import Engine
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import Floats, ScoreWork


class Oracle:
    """The artifact's engine, in this process."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)  # the server wants the cores, too
        artifact = load_artifact(folder)
        special, self._cells = artifact.description.special, artifact.description.grid.cells
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


def same(found: Floats, expected: Floats) -> bool:
    """Equal within the contract's tolerance, or that of half precision where the answer travelled so."""
    absolute, relative = (1e-5, 2e-6) if found.dtype == np.float32 else (1e-3, 1e-3)
    return found.shape == expected.shape and np.allclose(found, expected, atol=absolute, rtol=relative)
