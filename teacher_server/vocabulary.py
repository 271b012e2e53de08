"""What a teacher's token ids mean: grid cells first, then PAD, EOT and SOT. Pure; no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A rectangle cut into cells; token = row * columns + column.

    row = floor((lat - min_lat) / cell_lat) // downsample, column likewise, both clamped into the grid.
    `rows` and `columns` count cells after downsampling. Angles are degrees.
    """

    min_lat: float
    max_lat: float
    min_lng: float
    max_lng: float
    cell_lat: float
    cell_lng: float
    rows: int
    columns: int
    downsample: int = 1
    centroid_rule: str = "length-weighted"  # how a road becomes one point

    def __post_init__(self) -> None:
        numbers = (self.min_lat, self.max_lat, self.min_lng, self.max_lng, self.cell_lat, self.cell_lng)
        if not all(math.isfinite(x) for x in numbers):
            raise ValueError(f"grid bounds and cell sizes must be finite, got {numbers}")
        if not (self.min_lat < self.max_lat and self.min_lng < self.max_lng):
            raise ValueError("grid bounds are empty: min_lat < max_lat and min_lng < max_lng are needed")
        if min(self.cell_lat, self.cell_lng) <= 0 or self.downsample < 1:
            raise ValueError("cell sizes must be positive and downsample at least 1")
        expected = self.shape_of(
            self.max_lat - self.min_lat, self.max_lng - self.min_lng, self.cell_lat, self.cell_lng, self.downsample
        )
        if (self.rows, self.columns) != expected:
            raise ValueError(
                f"grid of {self.rows} x {self.columns} cells, but its bounds and cell sizes give "
                f"{expected[0]} x {expected[1]}"
            )

    @staticmethod
    def shape_of(
        span_lat: float, span_lng: float, cell_lat: float, cell_lng: float, downsample: int
    ) -> tuple[int, int]:
        """(rows, columns) of a grid over the given spans, in cells after downsampling."""
        rows = (math.floor(span_lat / cell_lat) + 1) // downsample
        columns = (math.floor(span_lng / cell_lng) + 1) // downsample
        return max(rows, 1), max(columns, 1)

    @property
    def cells(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that are no cells: padding, end and start of a trip."""

    pad: int
    eot: int
    sot: int

    @classmethod
    def after(cls, cells: int) -> SpecialTokens:
        """The order of the original: PAD, EOT, SOT behind the cells."""
        return cls(pad=cells, eot=cells + 1, sot=cells + 2)

    def __post_init__(self) -> None:
        if len({self.pad, self.eot, self.sot}) != 3:
            raise ValueError(f"special tokens must differ, got {self}")
