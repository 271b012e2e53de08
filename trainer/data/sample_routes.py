"""Makes taxi trips for an invented city: destinations by demand, routes by a noisy utility, times by class and hour.

Drivers minimise a cost in seconds: travel time at that hour, stretched for classes that they dislike, plus turns, all
multiplied by noise that is drawn anew for every group of trips. So routes are good but seldom the shortest ones. A
group is a few trips to one destination in one hour: one shortest-path tree serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from tqdm import tqdm

from trainer.data.sample_demand import Demand, departure_times
from trainer.data.sample_network import SampleNetwork
from trainer.data.sample_streets import Floats, Ints
from trainer.data.trips import Trips

FEWEST_ROADS, MOST_ROADS = 5, 64
GROUPS_PER_BATCH = 256
SMALLEST_GROUP, LARGEST_GROUP = 2, 12

# By class, in the order of sample_streets.CLASSES: free speed in km/h, how much of it is lost in the
# worst traffic, and the driver's factor on time (above 1: avoided).
SPEED = np.array([60, 48, 42, 36, 30, 27, 15], dtype=np.float64)
LOST = np.array([0.55, 0.5, 0.45, 0.35, 0.2, 0.15, 0.1])
DISLIKE = np.array([0.85, 0.9, 0.95, 1.0, 1.15, 1.25, 1.6])

# Share of the worst traffic by hour, weekday and weekend.
TRAFFIC = np.array(
    [
        [2, 1, 0, 0, 1, 2, 4, 8, 10, 8, 6, 6, 6, 6, 6, 7, 8, 10, 10, 8, 5, 4, 3, 2],
        [3, 3, 2, 1, 0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 6, 5, 5, 6, 6, 5, 4, 4, 4, 4],
    ]
) / 10.0

TURN_SECONDS = {"straight": 1.0, "right": 4.0, "left": 8.0, "back": 40.0}
ROUTE_NOISE = 0.35  # sigma of the lognormal factor on every road's cost
TIME_NOISE = 0.25  # the same on every road's time
DRIVER_NOISE = 0.12  # the same on a whole trip's time
USUAL_COST, SPREAD = 340.0, 0.45  # median and sigma of the wished cost of a trip, seconds, lognormal
HIGHEST_COST = USUAL_COST * float(np.exp(2.5 * SPREAD))


@dataclass(frozen=True)
class _Graph:
    """Roads as nodes; an edge leads from a road back to one that it can follow, so trees grow from destinations."""

    indptr: Ints  # [R + 1]
    before: NDArray_int32  # [E] the road before
    after: Ints  # [E] the road after: the row
    turn_s: Floats  # [E] cost of the turn between them


def make_trips(network: SampleNetwork, demand: Demand, count: int, rng: np.random.Generator) -> Trips:
    """`count` trips of 5 to 64 roads, none twice in a trip, ordered by start time."""
    parts: list[Trips] = []
    with tqdm(total=count, desc="trips", unit=" trips", leave=False) as bar:
        for part in _batches(network, demand, count, rng):
            parts.append(part)
            bar.update(min(len(part), count - bar.n))
    trips = join(parts)
    chosen = np.arange(count)
    return trips.select(chosen[np.argsort(trips.times[trips.offsets[:count]], kind="stable")])
