"""The road map as it is drawn: streets, with the visits of each.

A street is the line of one road, or of two that run back to back (both directions); their visits are added up,
since one would be drawn over the other. R roads, L streets, Q points of all streets.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.roadmap import Floats, RoadMap
from trainer.data.trips import Ints, ranges

STEPS = 65_535  # of the grid on which points lie: under half a metre where a city measures 30 km
SERIES = (1, 2, 5)
USAGE_BREAKS, DIFFERENCE_BREAKS = 6, 3


@dataclass(frozen=True)
class Streets:
    """Lines in metres from the south-western corner, x to the east and y to the north."""

    points: Ints  # [Q, 2] in steps of `metres_a_step`
    offsets: Ints  # [L + 1]
    metres_a_step: float
    of_road: Ints  # [R] which street
    backwards: NDArray[np.bool_]  # [R] whether the road runs along its street from the end to the start

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def visits(self, of_roads: Ints) -> Ints:
        """[L] from the visits of each road [R]."""
        return np.bincount(self.of_road, weights=of_roads, minlength=len(self)).astype(np.int64)

    def signed(self, roads: NDArray[np.integer]) -> Ints:
        """Each road as 2 * street, + 1 where it runs backwards."""
        return np.asarray(2 * self.of_road[roads] + self.backwards[roads])

    def plain(self) -> dict[str, Any]:
        """For the page."""
        lengths = np.diff(self.offsets)
        return {
            "points": packed(self.points, np.uint16),
            "lengths": packed(lengths, np.uint16),
            "metres": self.metres_a_step,
        }


def streets_of(road_map: RoadMap) -> Streets:
    """Projected around the middle latitude, on a grid."""
    points, metres_a_step = _on_a_grid(np.asarray(road_map.points))
    of_road, backwards = np.empty(road_map.roads, np.int64), np.zeros(road_map.roads, bool)
    kept: list[tuple[int, bytes]] = []  # of each street its first road, and that road's points
    found: dict[bytes, int] = {}
    for road in range(road_map.roads):
        line = points[road_map.point_offsets[road] : road_map.point_offsets[road + 1]]
        there, back = line.tobytes(), line[::-1].tobytes()
        key = min(there, back)
        of_road[road] = found.setdefault(key, len(found))
        if of_road[road] == len(kept):
            kept.append((road, there))
        backwards[road] = there != kept[of_road[road]][1]
    roads = np.array([road for road, _ in kept])
    starts, counts = np.asarray(road_map.point_offsets)[roads], np.diff(road_map.point_offsets)[roads]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Streets(points[ranges(starts, counts)].astype(np.int64), offsets, metres_a_step, of_road, backwards)


def _on_a_grid(points: Floats) -> tuple[NDArray[np.uint16], float]:
    """lng, lat in degrees to steps from the south-western corner, and the metres of a step."""
    low, high = points.min(axis=0), points.max(axis=0)
    metres = math.radians(1) * 6_371_008.8 * np.array([math.cos(math.radians(float(low[1] + high[1]) / 2)), 1.0])
    places = (points - low) * metres
    step = max(float(places.max()) / STEPS, 1e-3)
    return np.round(places / step).astype(np.uint16), step


def usage_breaks(per_thousand: Floats) -> list[float]:
    """Six rising visits per 1,000 trips, of the series 1, 2, 5, ..., that tell apart the streets that are used."""
    used = per_thousand[per_thousand > 0]
    return _series_up_to(float(np.percentile(used, 99)) if len(used) else 1.0, USAGE_BREAKS)


def difference_breaks(differences: Floats) -> list[float]:
    """Three rising distances from zero of the same series; the scale is symmetric."""
    seen = np.abs(differences[differences != 0])
    return _series_up_to(float(np.percentile(seen, 98)) if len(seen) else 1.0, DIFFERENCE_BREAKS)


def _series_up_to(greatest: float, count: int) -> list[float]:
    """The last `count` numbers of ..., 0.5, 1, 2, 5, 10, ... that are no greater."""
    power = math.floor(math.log10(greatest))
    all_of_them = [factor * 10.0**p for p in range(power - count, power + 1) for factor in SERIES]
    return [round(value, 12) for value in all_of_them if value <= greatest * (1 + 1e-9)][-count:]


def packed(values: NDArray[Any], kind: type[np.integer[Any]]) -> str:
    """As base64 of little-endian integers. Raises ValueError where one does not fit."""
    values = np.asarray(values)
    if values.size and not (np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max):
        raise ValueError(f"a value does not fit into {kind.__name__}")
    return base64.b64encode(values.astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()
