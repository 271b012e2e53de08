"""The searches in lock step against the plain ones, decision by decision: what the student would say is made up.

Log-probabilities are multiples of 1/4, so that sums are exact and ties abound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_search import NextRoads, Walker, plain_search
from trainer.data.features import Network
from trainer.generate.demand import Demand
from trainer.generate.expander import Expander, Question
from trainer.generate.lock_step import LockStep
from trainer.generate.route import Path, Route
from trainer.generate.search import KINDS, Answer, SearchSettings


@dataclass
class Made:
    """A map of roads on a line, and for every path what can follow it; some roads lead nowhere."""

    seed: int
    roads: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        degrees = rng.integers(0, 4, self.roads)
        self.following = [rng.choice(self.roads, min(d, self.roads), replace=False) for d in degrees]
        places = torch.from_numpy(rng.integers(0, 5, (self.roads, 1))).double()  # roads at equal distances
        nothing = torch.zeros(self.roads, dtype=torch.int64)
        xyz = torch.cat([100 * places, torch.zeros(self.roads, 2)], 1)
        self.network = Network(xyz, torch.zeros(self.roads, 2), nothing[:, None], nothing)

    def after(self, roads: Sequence[int], times: Sequence[int]) -> NextRoads:
        following = self.following[roads[-1]]
        rng = np.random.default_rng([self.seed, *roads, *(time % 7 for time in times)])
        log_probs = -rng.integers(0, 8, len(following)) / 4
        return NextRoads(following, log_probs, rng.integers(0, 100, len(following)))


class MadeWalker:
    """Answers a plain search."""

    def __init__(self, made: Made) -> None:
        self._made, self.network = made, made.network

    def next_roads(self, paths: Sequence[Path], destination: int) -> list[NextRoads]:
        return [self._made.after(path.roads, path.times) for path in paths]


class MadeExpander:
    """Answers searches in lock step."""

    def __init__(self, made: Made) -> None:
        self._made, self.network = made, made.network
        self.free, self.roomy = 1000, True
        self.rounds: list[int] = []

    def expand(self, asked: Sequence[Question]) -> None:
        self.rounds.append(len(asked))
        for node, destination, weekend in asked:
            assert node.answer is None
            node.answer = self._answer(node.path(), destination)
            assert weekend == bool((node.path().times[0] // 86_400 + 3) % 7 >= 5)

    def _answer(self, path: Path, destination: int) -> Answer:
        after = self._made.after(path.roads, path.times)
        metres = float(self.network.distance_m(torch.tensor(path.roads[-1]), torch.tensor(destination)))
        options = zip(after.roads.tolist(), after.log_probs.tolist(), after.seconds.tolist(), strict=True)
        return metres, list(options)


def demand_of(rng: np.random.Generator, roads: int, trips: int) -> Demand:
    ends = rng.integers(0, roads, (2, trips))
    return Demand(ends[0], ends[1], rng.integers(1_211_000_000, 1_212_000_000, trips), np.arange(trips))


def plain_routes(walker: object, demand: Demand, settings: SearchSettings) -> list[Route]:
    rows = zip(demand.origins.tolist(), demand.destinations.tolist(), demand.starts.tolist(), strict=True)
    return [plain_search(cast(Walker, walker), *row, settings, i) for i, row in enumerate(rows)]


def routes_of(expander: object, demand: Demand, settings: SearchSettings, nodes: int = 256) -> list[Route]:
    searches = LockStep(cast(Expander, expander), demand, settings, nodes)
    found = {trip.index: trip.route for trip in searches.run(range(len(demand)))}
    assert sorted(found) == list(range(len(demand)))
    return [cast(Route, found[i]) for i in range(len(demand))]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    roads=st.integers(1, 25),
    kind=st.sampled_from(KINDS),
    most=st.integers(1, 30),
    width=st.integers(1, 5),
    temperature=st.sampled_from([0.25, 1.0, 3.0]),
    nodes=st.integers(1, 9),
)
def test_every_decision_is_the_plain_one(
    seed: int, roads: int, kind: str, most: int, width: int, temperature: float, nodes: int
) -> None:
    made = Made(seed, roads)
    demand = demand_of(np.random.default_rng(seed), roads, 6)
    how = SearchSettings(kind, most, width, seed, temperature)
    assert routes_of(MadeExpander(made), demand, how, nodes) == plain_routes(MadeWalker(made), demand, how)


def test_the_cases_that_matter_do_occur() -> None:
    """Ends that are equal, unreachable, beyond the limit or behind a dead end, in the maps of the test above."""
    seen = set()
    for seed in range(40):
        made = Made(seed, 20)
        demand = demand_of(np.random.default_rng(seed), 20, 6)
        for route, *ends in zip(
            routes_of(MadeExpander(made), demand, SearchSettings(max_expansions=9)),
            demand.origins.tolist(),
            demand.destinations.tolist(),
            strict=True,
        ):
            seen.add("there already" if ends[0] == ends[1] else f"reached {route.reached}")
            seen.add(f"limit {route.expansions == 9 and not route.reached}")
            seen.add(f"dead end {not len(made.following[ends[0]])}")
    assert seen == {
        "there already", "reached True", "reached False", "limit True", "limit False", "dead end True", "dead end False"
    }  # fmt: skip


def test_rounds_are_full_while_there_are_trips() -> None:
    expander, seen = MadeExpander(Made(3, 25)), []
    demand = demand_of(np.random.default_rng(1), 25, 40)
    needed = sum(route.expansions for route in routes_of(expander, demand, SearchSettings(), nodes=4))
    assert set(expander.rounds[:-10]) == {4}
    assert needed <= sum(expander.rounds) <= needed + 20  # a few in vain, when no trip waits any more
    made = Made(4, 200)
    for seed in range(20):  # a trip alone goes ahead of itself
        alone = MadeExpander(made)
        [route] = routes_of(alone, demand_of(np.random.default_rng(seed), 200, 1), SearchSettings())
        seen.append(len(alone.rounds) / max(route.expansions, 1))
    assert min(seen) < 0.2


def test_a_cold_draw_takes_the_most_probable_road() -> None:
    made = Made(5, 25)
    demand = demand_of(np.random.default_rng(2), 25, 30)
    cold = routes_of(MadeExpander(made), demand, SearchSettings("sample", temperature=1e-3))
    unlike = routes_of(MadeExpander(made), demand, SearchSettings("sample", temperature=100.0))
    greedy = routes_of(MadeExpander(made), demand, SearchSettings("greedy"))
    assert sum(a.path.log_prob == b.path.log_prob for a, b in zip(cold, greedy, strict=True)) > 20  # ties are drawn
    assert cold != unlike
