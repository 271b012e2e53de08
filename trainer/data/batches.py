"""Batches of whole trips: padded road ids and times, and the order in which an epoch visits them.

B trips, T steps of the longest one. Step t stands at road t and predicts road t + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.data.trips import Ints, Trips

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Batch:
    """Trips side by side, padded on the right with zeros."""

    trip: Ints  # [B] index in the split
    roads: Tensor  # [B, T + 1] int64
    times: Tensor  # [B, T + 1] int64 seconds as written
    steps: Tensor  # [B] int64, T of each trip
    weekend: Tensor  # [B] bool: the first point of the whole trip is on a Saturday or Sunday

    def to(self, device: torch.device) -> Batch:
        moved = (x.to(device, non_blocking=True) for x in (self.roads, self.times, self.steps, self.weekend))
        return Batch(self.trip, *moved)


def is_weekend(seconds: Ints) -> np.ndarray:
    """Whether times (seconds since Thursday, 1970-01-01) fall on a Saturday or Sunday."""
    return (np.asarray(seconds) // SECONDS_PER_DAY + 3) % 7 >= 5


def collate(trips: Trips, chosen: Ints, max_steps: int) -> Batch:
    """The chosen trips as one batch; of a longer trip its last `max_steps` steps."""
    start, end = trips.offsets[chosen], trips.offsets[chosen + 1]
    points = np.minimum(end - start, max_steps + 1)
    first = end - points
    column = np.arange(int(points.max()))
    inside = column < points[:, None]
    index = np.where(inside, first[:, None] + column, 0)
    return Batch(
        trip=chosen,
        roads=torch.from_numpy(np.where(inside, trips.roads[index], 0).astype(np.int64)),
        times=torch.from_numpy(np.where(inside, trips.times[index], 0)),
        steps=torch.from_numpy(points - 1),
        weekend=torch.from_numpy(is_weekend(trips.times[start])),
    )


def truncated(trips: Trips, max_steps: int) -> int:
    """How many trips are longer than `max_steps` and lose their first steps."""
    return int((trips.lengths - 1 > max_steps).sum())


def cut(chosen: Ints, size: int) -> list[Ints]:
    """In pieces of at most `size`."""
    return [chosen[i : i + size] for i in range(0, len(chosen), size)]


def epoch_order(trips: int, batch_size: int, seed: int, epoch: int) -> list[Ints]:
    """Shuffled trip indices in batches; depends on seed and epoch only, so that a run can resume in the middle."""
    order = np.random.default_rng((seed, epoch)).permutation(trips)
    return list(np.split(order, range(batch_size, trips, batch_size)))


def in_order(trips: int, batch_size: int) -> Iterator[Ints]:
    """All trips once, first to last."""
    for start in range(0, trips, batch_size):
        yield np.arange(start, min(start + batch_size, trips))
