"""From roads to the teacher's tokens: a grid over the map, and which cell each road's centre falls into."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.roadmap import Floats
from trainer.errors import BadInput, TeacherMismatch

CENTROID_RULE = "length-weighted"
MAX_CLAMPED_SHARE = 0.01
MAX_CELLS = 2**31 - 4  # tokens are 32 bits wide, and PAD, EOT and SOT follow the cells


@dataclass(frozen=True)
class Grid:
    """Cells over a rectangle; `rows` and `columns` count cells after downsampling. Angles in degrees."""

    min_lat: float
    max_lat: float
    min_lng: float
    max_lng: float
    cell_lat: float
    cell_lng: float
    rows: int
    columns: int
    downsample: int = 1
    centroid_rule: str = CENTROID_RULE

    @classmethod
    def over(cls, points: Floats, cell: float, downsample: int = 1, bounds: Bounds | None = None) -> Grid:
        """A new grid over all points (lng, lat) or over the given bounds."""
        if not (math.isfinite(cell) and cell > 0):
            raise BadInput(f"the cell size must be a positive number of degrees, not {cell}")
        if downsample < 1:
            raise BadInput(f"downsample must be at least 1, not {downsample}")
        b = bounds or Bounds.around(points)
        if max(b.span_lat, b.span_lng) / cell > MAX_CELLS:
            raise BadInput(f"cells of {cell:g} degrees are too small: the grid would have over {MAX_CELLS} of them")
        rows, columns = (max((math.floor(s / cell) + 1) // downsample, 1) for s in (b.span_lat, b.span_lng))
        if rows * columns > MAX_CELLS:
            raise BadInput(f"cells of {cell:g} degrees are too small: {rows} x {columns} are over {MAX_CELLS} cells")
        return cls(b.min_lat, b.max_lat, b.min_lng, b.max_lng, cell, cell, rows, columns, downsample)

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    def __str__(self) -> str:
        return (
            f"{self.rows} x {self.columns} cells of {self.cell_lat:g} x {self.cell_lng:g} degrees, "
            f"lat {self.min_lat:.6f}..{self.max_lat:.6f}, lng {self.min_lng:.6f}..{self.max_lng:.6f}"
        )


@dataclass(frozen=True)
class Bounds:
    """A rectangle in degrees."""

    min_lat: float
    max_lat: float
    min_lng: float
    max_lng: float

    def __post_init__(self) -> None:
        numbers = (self.min_lat, self.max_lat, self.min_lng, self.max_lng)
        if not all(math.isfinite(x) for x in numbers) or self.span_lat <= 0 or self.span_lng <= 0:
            raise BadInput(f"bounds must be MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG with min < max, not {numbers}")

    @classmethod
    def around(cls, points: Floats) -> Bounds:
        """The smallest rectangle that holds all points, [P, 2] as lng, lat."""
        (min_lng, min_lat), (max_lng, max_lat) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return cls(min_lat, max_lat, min_lng, max_lng)

    @property
    def span_lat(self) -> float:
        return float(self.max_lat - self.min_lat)

    @property
    def span_lng(self) -> float:
        return float(self.max_lng - self.min_lng)


@dataclass(frozen=True)
class TokenMap:
    """The token of every road, and how many roads lay outside the grid and were moved to its edge."""

    grid: Grid
    road_to_token: NDArray[np.int32]  # [R]
    clamped: int


def map_roads(grid: Grid, centres: Floats) -> TokenMap:
    """Tokens of road centres [R, 2] (lng, lat). Raises TeacherMismatch when over 1 % of them lie outside the grid."""
    if grid.centroid_rule != CENTROID_RULE:
        raise TeacherMismatch(
            f"the teacher places roads by the rule {grid.centroid_rule!r}, this trainer by {CENTROID_RULE!r}"
        )
    row = np.floor((centres[:, 1] - grid.min_lat) / grid.cell_lat) // grid.downsample
    column = np.floor((centres[:, 0] - grid.min_lng) / grid.cell_lng) // grid.downsample
    inside = (row >= 0) & (row < grid.rows) & (column >= 0) & (column < grid.columns)
    clamped = int((~inside).sum())
    if clamped > MAX_CLAMPED_SHARE * len(centres):
        lng, lat = centres.T
        raise TeacherMismatch(
            f"{clamped} of {len(centres)} roads lie outside the teacher's grid ({grid}); the road map spans "
            f"lat {lat.min():.6f}..{lat.max():.6f}, lng {lng.min():.6f}..{lng.max():.6f}"
        )
    token = row.clip(0, grid.rows - 1) * grid.columns + column.clip(0, grid.columns - 1)
    return TokenMap(grid, token.astype(np.int32), clamped)
