"""Trips as ragged arrays: one place for the layout that all later stages share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Trips:
    """n trips, P points in all. Trip i is the slice offsets[i]:offsets[i + 1] of `roads` and `times`."""

    roads: NDArray[np.int32]  # [P] road ids
    times: Ints  # [P] seconds since 1970-01-01 of the time as written (local or not)
    offsets: Ints  # [n + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Points of each trip, [n]."""
        return np.diff(self.offsets)

    def roads_of(self, trip: int) -> NDArray[np.int32]:
        return self.roads[self.offsets[trip] : self.offsets[trip + 1]]

    def times_of(self, trip: int) -> Ints:
        return self.times[self.offsets[trip] : self.offsets[trip + 1]]

    def select(self, trips: Ints) -> Trips:
        """The given trips, in the given order."""
        lengths = self.lengths[trips]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        points = ranges(self.offsets[trips], lengths)
        return Trips(self.roads[points], self.times[points], offsets)


def ranges(starts: Ints, counts: NDArray[np.integer]) -> Ints:
    """start, start + 1, ..., start + count - 1 for every pair, one after another."""
    ends = np.cumsum(counts, dtype=np.int64)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
