"""Made-up trips for a load: random walks on a teacher's grid, so that windows look like those of real trips.

Pure numpy. Letters: B trips, L steps of each, K candidates of each step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int32]

# The eight neighbours in the order of their bearing: (rows, columns).
MOVES = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])
TURNS, TURN_SHARES = (-1, 0, 1), (0.15, 0.7, 0.15)  # eighths of a circle


@dataclass(frozen=True)
class Shape:
    """What one request holds. Every step of a trip is scored."""

    trips: int = 32
    steps: int = 40
    window: int = 7  # last tokens that a step sees; 0: all
    candidates: int = 3  # of each step
    whole: bool = False  # instead of steps' candidates, how probable each whole trip is: no window, no candidates

    @property
    def positions(self) -> int:
        return self.trips * (self.steps + self.whole)  # EOT is one


@dataclass(frozen=True, eq=False)
class Walks:
    """One request's trips."""

    shape: Shape
    tokens: Cells  # [B, L]
    candidates: Cells  # [B, L, K] cells near the step's own


def draw_walks(shape: Shape, rows: int, columns: int, random: np.random.Generator) -> Walks:
    """Trips that start anywhere, mostly go straight on, and turn back at the edge of the grid."""
    size = (shape.trips, shape.steps)
    turns = random.choice(TURNS, size=size, p=TURN_SHARES)
    heading = (random.integers(len(MOVES), size=(shape.trips, 1)) + np.cumsum(turns, axis=1)) % len(MOVES)
    start = random.integers((rows, columns), size=(shape.trips, 1, 2))
    places = start + np.cumsum(MOVES[heading], axis=1)  # [B, L, 2]
    near = places[:, :, None] + _nearest(shape.candidates)
    return Walks(shape, _cells(places, rows, columns), _cells(near, rows, columns))


def _nearest(count: int) -> NDArray[np.int64]:
    """[count, 2] the nearest places around one, itself left out."""
    reach = int(np.ceil((np.sqrt(count + 1) - 1) / 2))
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    order = np.argsort((grid**2).sum(axis=1), kind="stable")
    return grid[order[1 : count + 1]]


def _cells(places: NDArray[np.int64], rows: int, columns: int) -> Cells:
    """Tokens of (row, column) places, those beyond an edge reflected at it."""
    row, column = (_reflected(places[..., axis], size) for axis, size in enumerate((rows, columns)))
    return (row * columns + column).astype(np.int32)


def _reflected(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    if size == 1:
        return np.zeros_like(places)
    around = places % (2 * (size - 1))
    return np.minimum(around, 2 * (size - 1) - around)
