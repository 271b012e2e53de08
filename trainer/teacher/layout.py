"""Where a split's steps and their candidates lie, one after another. Pure numpy.

n trips, P steps, N candidates of all steps. A trip is cut to its last `max_len` steps, as `collate` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.roadmap import RoadMap
from trainer.data.trips import Ints, Trips, ranges


@dataclass(frozen=True)
class Steps:
    """Every step of every trip; trip i is the slice offsets[i]:offsets[i + 1]."""

    roads: NDArray[np.int32]  # [P] where each step stands
    offsets: Ints  # [n + 1]
    degrees: NDArray[np.int32]  # [P] candidates of each step


def all_steps(trips: Trips, road_map: RoadMap, max_len: int) -> Steps:
    """The steps that a student sees of a split."""
    steps = np.minimum(trips.lengths - 1, max_len)
    roads = trips.roads[ranges(trips.offsets[1:] - 1 - steps, steps)]
    degrees = np.diff(road_map.successor_offsets).astype(np.int32)[roads]
    return Steps(roads, offsets_of(steps), degrees)


def value_offsets(steps: Steps) -> Ints:
    """Where each trip's candidates begin among those of all trips, [n + 1]."""
    return offsets_of(steps.degrees)[steps.offsets]


def offsets_of(counts: NDArray[np.integer]) -> Ints:
    """Where each of some parts begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
