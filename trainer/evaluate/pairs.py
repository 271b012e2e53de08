"""Pairs generated trips with real ones that start and end in the same cells, and compares them one by one.

Cells are squares of a grid over lng and lat; a trip's OD-cell pair is the cells of its first and last road's centre.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput
from trainer.evaluate.paths import EARTH_RADIUS_KM, Floats, PathDistances, compare_paths

T = TypeVar("T")
METRES_PER_DEGREE = math.radians(1) * EARTH_RADIUS_KM * 1000
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


@dataclass(frozen=True)
class EndCells:
    """Cells in which trips start and end, [n] each."""

    origin: Ints
    destination: Ints

    @classmethod
    def of(cls, trips: Trips, cells: Ints) -> EndCells:
        """From the cells of all roads, [R]."""
        return cls(cells[trips.roads[trips.offsets[:-1]]], cells[trips.roads[trips.offsets[1:] - 1]])

    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.origin.tolist(), self.destination.tolist(), strict=True))


def match_rates(generated: EndCells, real: EndCells) -> dict[str, float]:
    """Share of the generated trips' distinct OD-cell pairs, origin and destination cells that real trips have."""
    return {
        "od_pair_match_rate": _share_found(set(generated.pairs()), set(real.pairs())),
        "origin_match_rate": _share_found(set(generated.origin.tolist()), set(real.origin.tolist())),
        "destination_match_rate": _share_found(set(generated.destination.tolist()), set(real.destination.tolist())),
    }


def _share_found(wanted: set[T], there: set[T]) -> float:
    return len(wanted & there) / len(wanted)


def pair_trips(generated: EndCells, real: EndCells) -> Ints:
    """(generated trip, real trip) to compare, [pairs, 2].

    Within an OD-cell pair the i-th generated trip goes with the i-th real one, as far as both have trips; ordered
    by the generated trip.
    """
    waiting: dict[tuple[int, int], list[int]] = {}
    for trip, ends in enumerate(real.pairs()):
        waiting.setdefault(ends, []).append(trip)
    queues = {ends: iter(trips) for ends, trips in waiting.items()}
    matched = [
        (trip, other)
        for trip, ends in enumerate(generated.pairs())
        if (other := next(queues.get(ends, iter(())), None)) is not None
    ]
    return np.array(matched, dtype=np.int64).reshape(-1, 2)


def compare_pairs(generated: Trips, real: Trips, pairs: Ints, centres: Floats) -> list[PathDistances]:
    """The distances between the paths of each pair, in the order of `pairs`."""
    return [
        compare_paths(centres[generated.roads_of(trip)], centres[real.roads_of(other)])
        for trip, other in pairs.tolist()
    ]
