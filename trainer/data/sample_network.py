"""Makes a strongly connected road network of directed roads from a street plan.

R roads, E relations. Every two-way street is two roads; a road's id is its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trainer.data.sample_streets import Bools, Floats, Ints, StreetPlan, plan_streets

SOUTH_WEST = (10.0, 50.0)  # lng, lat of the city's corner
METRES_PER_DEGREE = 111_195.0  # of latitude, for R = 6371.0088 km
EARTH_RADIUS_M = 6_371_008.8
TOLERANCE = 0.01  # of the number of roads that was asked for
PLANS = 8
ATTEMPTS = 40  # to fit one plan


@dataclass(frozen=True)
class SampleNetwork:
    """The road network of an invented city."""

    polylines: tuple[Floats, ...]  # R arrays [points, 2] of lng, lat, in driving direction
    ends: Ints  # [R, 2] junctions where a road starts and ends, counted from 0 without gaps
    level: Ints  # [R] index into sample_streets.CLASSES
    one_way: Bools  # [R] there is no road for the opposite direction
    bridge: Bools  # [R]
    length_m: Floats  # [R]
    relations: Ints  # [E, 2] road, road that can follow; sorted

    @property
    def roads(self) -> int:
        return len(self.ends)


@dataclass(frozen=True)
class _Roads:
    """Directed roads of a plan: which street each belongs to and where it starts and ends."""

    street: Ints
    start: Ints
    end: Ints

    def select(self, kept: Ints) -> _Roads:
        return _Roads(self.street[kept], self.start[kept], self.end[kept])


def make_network(roads: int, rng: np.random.Generator) -> SampleNetwork:
    """A network of about `roads` roads: strongly connected, without dead ends.

    A road may be followed by every road that starts where it ends, but by its own opposite direction only
    where nothing else follows.
    """
    plan, chosen = min(_candidates(roads, rng), key=lambda made: abs(roads - len(made[1].street)))
    relations = _relations(chosen)
    _, ends = np.unique(np.stack([chosen.start, chosen.end], axis=1), return_inverse=True)
    polylines = _polylines(plan, chosen, rng)
    directions = np.bincount(chosen.street, minlength=plan.streets)
    return SampleNetwork(
        polylines=polylines,
        ends=ends.reshape(-1, 2),
        level=plan.level[chosen.street],
        one_way=directions[chosen.street] == 1,
        bridge=plan.bridge[chosen.street],
        length_m=np.array([_length_m(line) for line in polylines]),
        relations=relations,
    )


def _candidates(roads: int, rng: np.random.Generator) -> Iterator[tuple[StreetPlan, _Roads]]:
    """Plans and their roads until one fits; in a small one, the roads that must stay may be too many."""
    for _ in range(PLANS):
        plan = plan_streets(roads, rng)
        chosen = _fit(plan, roads)
        yield plan, chosen
        if abs(roads - len(chosen.street)) <= TOLERANCE * roads:
            return


def _fit(plan: StreetPlan, roads: int) -> _Roads:
    """The connected roads of the plan without so many of its least important streets that the number fits."""
    order = np.argsort(-plan.importance, kind="stable")
    kept = round(0.9 * plan.streets)
    best = _connected(_directed(plan, order[:kept]))
    for _ in range(ATTEMPTS):
        gap = roads - len(best.street)
        if abs(gap) <= TOLERANCE * roads:
            break
        kept = int(np.clip(kept + np.sign(gap) * max(1, abs(gap) // 2), 1, plan.streets))
        found = _connected(_directed(plan, order[:kept]))
        if abs(roads - len(found.street)) < abs(gap):
            best = found
    return best


def _directed(plan: StreetPlan, streets: Ints) -> _Roads:
    """One or two roads for each of the streets, in the order of the plan."""
    streets = np.sort(streets)
    there = streets[plan.one_way[streets] >= 0]
    back = streets[plan.one_way[streets] <= 0]
    roads = _Roads(
        np.concatenate([there, back]),
        np.concatenate([plan.ends[there, 0], plan.ends[back, 1]]),
        np.concatenate([plan.ends[there, 1], plan.ends[back, 0]]),
    )
    return roads.select(np.argsort(roads.street, kind="stable"))


def _connected(roads: _Roads) -> _Roads:
    """The largest set of roads that can all reach each other and where no junction has one street only."""
    while len(roads.street):
        relations = _relations(roads)
        count = len(roads.street)
        graph = coo_array((np.ones(len(relations), np.int8), (relations[:, 0], relations[:, 1])), (count, count))
        _, label = connected_components(graph, directed=True, connection="strong")
        kept = label == np.bincount(label).argmax()
        kept &= ~_touches_dead_end(roads, kept)
        if kept.all():
            break
        roads = roads.select(np.flatnonzero(kept))
    return roads


def _touches_dead_end(roads: _Roads, among: Bools) -> Bools:
    """Whether a road starts or ends at a junction that only one street (of the roads `among`) leads to."""
    width = int(roads.street.max()) + 1
    arms = np.unique(np.concatenate([roads.start[among], roads.end[among]]) * width + np.tile(roads.street[among], 2))
    junctions = int(max(roads.start.max(), roads.end.max())) + 1
    lonely = np.bincount(arms // width, minlength=junctions) == 1
    return np.asarray(lonely[roads.start] | lonely[roads.end])


def _relations(roads: _Roads) -> Ints:
    """[E, 2] pairs of a road and one that can follow it, sorted by both."""
    by_start = np.argsort(roads.start, kind="stable")
    starts = roads.start[by_start]
    first = np.searchsorted(starts, roads.end, side="left")
    counts = np.searchsorted(starts, roads.end, side="right") - first
    origin = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    follower = by_start[np.repeat(first, counts) + within]
    back = roads.street[origin] == roads.street[follower]
    has_other = np.bincount(origin[~back], minlength=len(counts)) > 0
    allowed = ~back | ~has_other[origin]
    pairs = np.stack([origin[allowed], follower[allowed]], axis=1)
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


def _polylines(plan: StreetPlan, roads: _Roads, rng: np.random.Generator) -> tuple[Floats, ...]:
    """Polylines of the roads; both directions of a street have the same points."""
    metres_per_lng = METRES_PER_DEGREE * np.cos(np.radians(SOUTH_WEST[1]))
    scale = np.array([metres_per_lng, METRES_PER_DEGREE])
    bends = rng.integers(0, 5, plan.streets)
    bows = rng.normal(0, 0.05, plan.streets)
    lines: list[Floats] = []
    for street, start in zip(roads.street, roads.start, strict=True):
        first, last = plan.junctions[plan.ends[street]]
        line = np.round(_bow(first, last, int(bends[street]), float(bows[street])) / scale + SOUTH_WEST, 7)
        lines.append(line if start == plan.ends[street, 0] else line[::-1])
    return tuple(lines)


def _bow(first: Floats, last: Floats, bends: int, height: float) -> Floats:
    """A line from `first` to `last` with points between that lie on an arc, [bends + 2, 2]."""
    share = np.linspace(0, 1, bends + 2)[:, None]
    along = last - first
    aside = np.array([-along[1], along[0]])
    line: Floats = first + share * along + height * np.sin(np.pi * share) * aside
    line[-1] = last  # exactly, because another road starts there
    line[0] = first
    return line


def _length_m(line: Floats) -> float:
    """Length of a polyline of lng, lat: the sum of its haversine distances."""
    lng, lat = np.radians(line.T)
    total = 0.0
    for (lng_a, lat_a), (lng_b, lat_b) in pairwise(zip(lng, lat, strict=True)):
        half = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lng_b - lng_a) / 2) ** 2
        total += 2 * EARTH_RADIUS_M * float(np.arcsin(np.sqrt(half)))
    return total
