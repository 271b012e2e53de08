"""Cells of origins and destinations: squares of a grid over lng and lat."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints
from trainer.errors import BadInput

METRES_PER_DEGREE = math.radians(1) * 6_371_008.8
SIZES = {"degree": (1e-6, 90.0), "metre": (0.1, 1e7)}  # smallest and largest cell


@dataclass(frozen=True)
class Cell:
    """Size of the OD cells."""

    size: float = 0.001
    unit: Literal["degree", "metre"] = "degree"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Reads `0.001` (degrees) or `200m` (metres). Raises BadInput."""
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(m?)\s*", text)
        try:
            size = float(match[1]) if match else math.nan
        except ValueError:
            size = math.nan
        unit: Literal["degree", "metre"] = "metre" if match and match[2] else "degree"
        if not SIZES[unit][0] <= size <= SIZES[unit][1]:
            raise BadInput(
                f"OD cell {text!r}: give its size in degrees (0.000001 to 90), as in 0.001, "
                "or in metres (0.1 to 10000000), as in 200m"
            )
        return cls(size, unit)


def road_cells(centres: Floats, cell: Cell) -> Ints:
    """A number for each road's cell, from 0 and without gaps, [R], from centres [R, 2].

    Metres become degrees at the mean latitude of the centres, so that cells are the same for all trips of a map.
    """
    size = np.array([cell.size, cell.size])
    if cell.unit == "metre":
        size = size / METRES_PER_DEGREE / np.array([math.cos(math.radians(float(centres[:, 1].mean()))), 1.0])
    rows = np.floor(centres / size).astype(np.int64)
    return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1))
