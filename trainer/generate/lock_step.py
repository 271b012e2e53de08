"""Many searches in lock step: in every round the student expands the nodes that all of them wait for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

import torch

from trainer.data.batches import is_weekend
from trainer.generate.demand import Demand
from trainer.generate.expander import PLACES, ROWS, Expander, Question
from trainer.generate.route import Cost, Found, Route
from trainer.generate.search import Likely, Node, Search, SearchSettings, nothing_likely, search

NODES = 256  # of a round: enough for matrix products at full speed, and few enough to stay in a core's cache
FEW = 64  # where fewer are waited for, nodes that probably will be are expanded beside them


def places_for(settings: SearchSettings, roads: int) -> int:
    """Room for one trip at least: no path has a road twice, and best-first expands none twice."""
    return max(PLACES, min(settings.max_expansions, settings.width * roads) + 2 * ROWS)


@dataclass
class Trip:
    """A search under way; `route` when it has ended."""

    index: int
    destination: int
    weekend: bool
    search: Search
    nodes: list[Node] = field(default_factory=list)  # waited for
    likely: Likely = nothing_likely
    route: Route | None = None
    cost: Cost = field(default_factory=Cost)

    def go_on(self) -> None:
        """To the next nodes that are not expanded yet, or to the end."""
        try:
            self.nodes, self.likely = next(self.search)
        except StopIteration as end:
            self.nodes, self.route = [], end.value

    def questions(self, ahead: int) -> list[Question]:
        nodes = self.nodes + self.likely(ahead) if ahead else self.nodes
        return [(node, self.destination, self.weekend) for node in nodes]


class LockStep:
    """Searches for the trips of a demand. Which of them are under way together changes no result."""

    def __init__(self, expander: Expander, demand: Demand, settings: SearchSettings, nodes: int = NODES) -> None:
        self._expander, self._demand, self._settings, self._nodes = expander, demand, settings, nodes
        self._weekend = is_weekend(demand.starts)
        self._waiting: list[int] = []  # the next one last
        self._live: list[Trip] = []  # the oldest one first

    def run(self, trips: Iterable[int]) -> Iterator[Found]:
        """Trips by index, as they end. Those with far destinations begin first: no long one shall be last, alone."""
        self._waiting = sorted(trips, key=self._metres().__getitem__)
        while self._waiting or self._live:
            self._admit()
            self._make_room()
            self._round()
            yield from (Found(trip.index, trip.route, trip.cost) for trip in self._live if trip.route)
            self._live = [trip for trip in self._live if not trip.route]

    def _metres(self) -> list[float]:
        """From each origin to its destination."""
        network = self._expander.network
        ends = (torch.from_numpy(each).to(network.successors.device) for each in self._demand.ends)
        return list(network.distance_m(*ends).tolist())

    def _admit(self) -> None:
        """Begins trips until the round is full; none while little room is left."""
        wanted = self._wanted()
        while self._waiting and wanted < self._nodes and (self._expander.roomy or not self._live):
            trip = self._trip(self._waiting.pop())
            trip.go_on()
            wanted += len(trip.nodes)
            self._live.append(trip)

    def _trip(self, index: int) -> Trip:
        demand = self._demand
        origin, destination, start = (int(each[index]) for each in (*demand.ends, demand.starts))
        route = search(origin, destination, start, self._settings, index)
        return Trip(index, destination, bool(self._weekend[index]), route)

    def _make_room(self) -> None:
        """Gives up the youngest trips where the round would not fit; they begin anew later."""
        while len(self._live) > 1 and self._wanted() + ROWS > self._expander.free:
            self._waiting.append(self._live.pop().index)

    def _wanted(self) -> int:
        return sum(len(trip.nodes) for trip in self._live)

    def _ahead(self) -> int:
        """How many nodes of every trip are expanded before they are waited for."""
        few = min(FEW, self._nodes) - self._wanted()
        return max(few // len(self._live), 0) if self._live and self._expander.roomy else 0

    def _round(self) -> None:
        begun, ahead = perf_counter(), self._ahead()
        counts = [len(trip.nodes) for trip in self._live]
        asked = [question for trip in self._live for question in trip.questions(ahead)]
        if asked:
            self._expander.expand(asked)
        forward = perf_counter() - begun
        for trip, count in zip(self._live, counts, strict=True):
            if count:
                trip.go_on()
        seconds = perf_counter() - begun
        for trip, count in zip(self._live, counts, strict=True):
            share = count / max(sum(counts), 1)
            trip.cost.seconds += seconds * share
            trip.cost.forward_seconds += forward * share
            trip.cost.forwards += bool(count)
