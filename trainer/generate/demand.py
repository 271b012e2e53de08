"""What to generate: origins, destinations and start times."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.data.roadmap import csv_rows, road_id
from trainer.data.trip_text import parse_time
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, BadLine

ENDS = ("origin_road_id", "destination_road_id")


@dataclass(frozen=True)
class Demand:
    """n trips to generate."""

    origins: Ints  # [n]
    destinations: Ints  # [n]
    starts: Ints  # [n] seconds
    sources: Ints  # [n] trip of the split (or row of the file) that each comes from

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def ends(self) -> tuple[Ints, Ints]:
        """Origins and destinations."""
        return self.origins, self.destinations

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        columns = np.stack([*self.ends, self.starts, self.sources]).astype("<i8")
        return hashlib.sha256(columns.tobytes()).hexdigest()


def draw_demand(trips: Trips, count: int, seed: int) -> Demand:
    """Ends and start times of real trips, so that a pair is drawn in proportion to its count.

    No trip is drawn again before all have been drawn once.
    """
    if count < 1:
        raise BadInput(f"the number of trips must be at least 1, not {count}")
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(trips))
    return demand_of(trips, np.concatenate([rng.permutation(len(trips)) for _ in range(rounds)])[:count])


def demand_of(trips: Trips, chosen: Ints) -> Demand:
    """The ends and start times of the chosen trips."""
    return Demand(
        trips.roads[trips.offsets[chosen]].astype(np.int64),
        trips.roads[trips.offsets[chosen + 1] - 1].astype(np.int64),
        trips.times[trips.offsets[chosen]],
        chosen,
    )


def read_demand(file: Path, roads: int) -> Demand:
    """A CSV with `origin_road_id`, `destination_road_id` and `source_origin_time`. Raises BadInput or BadLine."""
    found: list[tuple[int, int, int]] = []
    for line, row in csv_rows(file, (*ENDS, "source_origin_time")):
        origin, destination = (road_id(file, line, name, row[name], roads) for name in ENDS)
        start = parse_time(row["source_origin_time"])
        if start is None:
            raise BadLine(file, line, "source_origin_time is not YYYY-MM-DDTHH:MM:SSZ", row["source_origin_time"])
        found.append((origin, destination, start))
    if not found:
        raise BadInput(f"{file}: holds no origin and destination")
    origins, destinations, starts = np.asarray(found, dtype=np.int64).T
    return Demand(origins, destinations, starts, np.arange(len(found)))
