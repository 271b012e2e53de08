"""A teacher at the seam whose answers are a known function of what a step may see, so that mixed-up rows show."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainer.grid import Grid
from trainer.teacher.protocol import Answer, Description, Limits, Query

CELLS, BLOCK = 7, 6
BIG = 1 << 30


def exact_log_probs(seen: list[int], candidates: list[int]) -> NDArray[np.float32]:
    """After the tokens that are seen; each token, its place and the candidate's cell count."""
    history = sum((place + 2) * (token + 1) for place, token in enumerate(seen))
    logits = np.array([np.sin(history * (cell + 1.7)) * 3 for cell in candidates])
    return (logits - np.log(np.exp(logits).sum())).astype(np.float32) if len(logits) else logits.astype(np.float32)


def visible(history: list[int], window: int) -> list[int]:
    """What of a history a step sees."""
    room = BLOCK - 1
    return history[-min(window or room, room) :]


@dataclass
class ExactTeacher:
    """Keeps its queries; `broken` candidates get NaN."""

    queries: list[Query] = field(default_factory=list)
    broken: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def description(self) -> Description:
        grid = Grid(0.0, 1.0, 0.0, 1.0, 1.0, 1.0 / CELLS, 1, CELLS)
        limits = Limits(BIG, BIG, BIG, BIG, BIG, BIG)
        return Description("e" * 64, CELLS + 3, CELLS, CELLS, CELLS + 1, CELLS + 2, BLOCK, grid, "float32", limits)

    def score(self, query: Query) -> Answer:
        with self._lock:
            self.queries.append(query)
        histories = np.split(query.tokens, np.cumsum(query.lengths)[:-1])
        candidates = iter(np.split(query.candidates, np.cumsum(query.counts)[:-1]))
        answers = []
        for history, scored in zip(histories, query.scored.tolist(), strict=True):
            for end in range(len(history) - scored + 1, len(history) + 1):
                cells = next(candidates).tolist()
                answers.append(exact_log_probs(visible(history[:end].tolist(), query.window), cells))
                answers[-1][[cell == self.broken for cell in cells]] = np.nan
        return Answer(np.concatenate(answers).astype(np.float32), 0)

    def close(self) -> None:
        pass
