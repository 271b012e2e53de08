"""Makes taxi trips for an invented city: ends by demand, routes by a noisy utility, times by class and hour.

Drivers minimise a cost in seconds: travel time at that hour, stretched for classes that they dislike, plus
turns; the roads' part is multiplied by noise that is drawn anew for every group of trips. So routes are good
but seldom the quickest. A group is a few trips to one destination in one hour: one tree of cheapest paths serves
them all.

R roads, E relations, g trips of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from tqdm import tqdm

from trainer.data.sample_demand import Demand, departure_times
from trainer.data.sample_network import SampleNetwork
from trainer.data.sample_streets import Floats, Ints
from trainer.data.trips import Trips

FEWEST_ROADS, MOST_ROADS = 5, 64
GROUPS_PER_BATCH = 256
SMALLEST_GROUP, LARGEST_GROUP = 2, 20
WISHED_GROUPS = 1_500  # few trips a group where there are few trips, so that routes vary

# By class, in the order of sample_streets.CLASSES: free speed in km/h, how much of it is lost in the
# worst traffic, and the driver's factor on time (above 1: avoided).
SPEED_KMH = np.array([60, 48, 42, 36, 30, 27, 15], dtype=np.float64)
LOST = np.array([0.55, 0.5, 0.45, 0.35, 0.2, 0.15, 0.1])
DISLIKE = np.array([0.85, 0.9, 0.95, 1.0, 1.15, 1.25, 1.6])

# How much of the worst traffic there is at each hour, on weekdays and at weekends.
TRAFFIC = 0.1 * np.array(
    [
        [2, 1, 0, 0, 1, 2, 4, 8, 10, 8, 6, 6, 6, 6, 6, 7, 8, 10, 10, 8, 5, 4, 3, 2],
        [3, 3, 2, 1, 0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 6, 5, 5, 6, 6, 5, 4, 4, 4, 4],
    ]
)

STRAIGHT_S, RIGHT_S, LEFT_S, BACK_S = 1.0, 4.0, 8.0, 40.0
ROUTE_NOISE = 0.35  # sigma of the lognormal factor on every road's cost
TIME_NOISE = 0.25  # the same on every road's time
DRIVER_NOISE = 0.12  # the same on a whole trip's time
USUAL_COST, COST_SPREAD = 400.0, 0.45  # median (s) and sigma of the cost of a wished trip, lognormal
HIGHEST_COST = USUAL_COST * float(np.exp(2.5 * COST_SPREAD))


@dataclass(frozen=True)
class _Graph:
    """Roads as nodes; an edge leads from a road to one before it, so that trees grow from destinations."""

    offsets: NDArray[np.int32]  # [R + 1]
    before: NDArray[np.int32]  # [E] the roads before each road
    turn_s: Floats  # [E] what the turn between the two costs
    headings: Floats  # [R, 2] direction at the start and at the end of a road, radians


@dataclass(frozen=True)
class _Routes:
    """Trips without times."""

    roads: Ints  # one trip after the other
    lengths: Ints
    day: int
    hour: int


def make_trips(network: SampleNetwork, demand: Demand, count: int, rng: np.random.Generator) -> Trips:
    """`count` trips of 5 to 64 roads, none twice in a trip, ordered by start time."""
    graph = _make_graph(network)
    group = int(np.clip(count // WISHED_GROUPS, SMALLEST_GROUP, LARGEST_GROUP))
    parts: list[Trips] = []
    with tqdm(total=count, desc="make trips", unit=" trips", leave=False, disable=None) as bar:
        made = 0  # the bar does not count where it is not shown
        while made < count:
            routes = list(_batch(network, demand, graph, group, rng))
            parts.append(_with_times(network, graph, routes, rng))
            bar.update(min(len(parts[-1]), count - made))
            made += len(parts[-1])
    trips = _join(parts)
    # Any of them, not the first: those of a batch come ordered by hour.
    chosen = rng.permutation(len(trips))[:count]
    return trips.select(chosen[np.argsort(trips.times[trips.offsets[chosen]], kind="stable")])


def turn_seconds(heading_out: Floats, heading_in: Floats) -> Floats:
    """Seconds that turns take, from the headings (radians) at the end of a road and the start of the next."""
    angle = np.degrees(np.angle(np.exp(1j * (heading_in - heading_out))))
    return np.select([np.abs(angle) < 35, np.abs(angle) > 150, angle < 0], [STRAIGHT_S, BACK_S, RIGHT_S], LEFT_S)


def road_seconds(network: SampleNetwork, roads: Ints, day: Ints | int, hour: Ints | int) -> Floats:
    """Usual seconds on the roads in an hour of a weekday (day 0) or weekend (day 1)."""
    level = network.level[roads]
    kmh = SPEED_KMH[level] * (1 - LOST[level] * TRAFFIC[day, hour])
    return np.asarray(network.length_m[roads] / (kmh / 3.6))


def _make_graph(network: SampleNetwork) -> _Graph:
    headings = np.array([[_heading(line[0], line[1]), _heading(line[-2], line[-1])] for line in network.polylines])
    before, after = network.relations.T
    order = np.lexsort((before, after))
    before, after = before[order], after[order]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(after, minlength=network.roads))])
    turn_s = turn_seconds(headings[before, 1], headings[after, 0])
    return _Graph(offsets.astype(np.int32), before.astype(np.int32), turn_s, headings)


def _heading(here: Floats, there: Floats) -> float:
    return float(np.arctan2(there[1] - here[1], (there[0] - here[0]) * np.cos(np.radians(here[1]))))


def _batch(
    network: SampleNetwork, demand: Demand, graph: _Graph, group: int, rng: np.random.Generator
) -> Iterator[_Routes]:
    """Routes of some groups, all of an hour together: their usual times and weights are computed once."""
    hours = np.sort(rng.choice(48, GROUPS_PER_BATCH, p=demand.departures.ravel()))
    for flat, groups in zip(*np.unique(hours, return_counts=True), strict=True):
        day, hour = divmod(int(flat), 24)
        cost = road_seconds(network, np.arange(network.roads), day, hour) * DISLIKE[network.level]
        destinations = rng.choice(network.roads, groups, p=demand.destinations[day, hour])
        for destination in destinations:
            noisy = cost * rng.lognormal(0, ROUTE_NOISE, network.roads)
            total, next_road = _tree(graph, noisy, int(destination))
            starts = _starts(total, demand.origins[day, hour], 2 * group + 2, rng)
            roads, lengths = _unroll(next_road, starts, int(destination), group)
            yield _Routes(roads, lengths, day, hour)


def _tree(graph: _Graph, cost: Floats, destination: int) -> tuple[Floats, Ints]:
    """Cost from each road to the destination (inf: too far) and the road to take next, [R] each."""
    weights = cost[graph.before] + graph.turn_s
    roads = len(cost)
    reversed_graph = csr_array((weights, graph.before, graph.offsets), (roads, roads))
    total, next_road = dijkstra(reversed_graph, indices=destination, return_predecessors=True, limit=HIGHEST_COST)
    next_road[destination] = destination
    return total, next_road


def _starts(total: Floats, attraction: Floats, wanted: int, rng: np.random.Generator) -> Ints:
    """Different roads to start from, drawn by demand and so that costs are lognormal: [wanted or fewer]."""
    near = np.flatnonzero(np.isfinite(total) & (total > 0))
    cost = total[near]
    wish = np.exp(-0.5 * (np.log(cost / USUAL_COST) / COST_SPREAD) ** 2) / cost
    # There are more roads farther away, in proportion to the distance: hence one more division by cost.
    weight = attraction[near] * wish / cost + 1e-300
    # The smallest of exponential draws with these rates: a weighted sample without replacement.
    rank = rng.exponential(size=len(near)) / weight
    return np.asarray(near[np.argsort(rank)[:wanted]])


def _unroll(next_road: Ints, starts: Ints, destination: int, wanted: int) -> tuple[Ints, Ints]:
    """Follows the tree from all starts at once: (roads, lengths) of the first `wanted` trips that fit."""
    steps = [starts]
    while len(steps) < MOST_ROADS and (steps[-1] != destination).any():
        steps.append(next_road[steps[-1]])
    table = np.stack(steps, axis=1)
    lengths = (table != destination).sum(axis=1) + 1
    good = np.flatnonzero((table[:, -1] == destination) & (lengths >= FEWEST_ROADS))[:wanted]
    return table[good][np.arange(table.shape[1]) < lengths[good, None]], lengths[good]


def _with_times(network: SampleNetwork, graph: _Graph, routes: list[_Routes], rng: np.random.Generator) -> Trips:
    """Trips with the times at which their roads are entered."""
    roads = np.concatenate([each.roads for each in routes])
    lengths = np.concatenate([each.lengths for each in routes])
    counts = [len(each.lengths) for each in routes]
    day = np.repeat([each.day for each in routes], counts)
    hour = np.repeat([each.hour for each in routes], counts)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    usual = road_seconds(network, roads, np.repeat(day, lengths), np.repeat(hour, lengths))
    driver = np.repeat(rng.lognormal(0, DRIVER_NOISE, len(lengths)), lengths)
    seconds = usual * driver * rng.lognormal(0, TIME_NOISE, len(roads))
    seconds[:-1] += turn_seconds(graph.headings[roads[:-1], 1], graph.headings[roads[1:], 0])
    whole = np.maximum(np.round(seconds), 1).astype(np.int64)
    passed = np.concatenate([[0], np.cumsum(whole)])[:-1]
    start = departure_times(day, hour, rng) - passed[offsets[:-1]]
    return Trips(roads.astype(np.int32), passed + np.repeat(start, lengths), offsets)


def _join(parts: list[Trips]) -> Trips:
    lengths = np.concatenate([part.lengths for part in parts])
    return Trips(
        np.concatenate([part.roads for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )
