"""Route search: from an origin to a destination along the student's probabilities.

A search is a generator: it yields the nodes that it waits for, and goes on when they are expanded, so that many
searches can share one call of the student. It returns its route.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.generate.route import Path, Route

KINDS = ("best-first", "beam", "greedy", "sample")

Option = tuple[int, float, int]  # a road that can follow, its log-probability, seconds until it is entered
Answer = tuple[float, Sequence[Option]]  # metres from a node's road to the destination, and what can follow


@dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    kind: str = "best-first"
    max_expansions: int = 5000
    beam_width: int = 4
    seed: int = 0  # of `sample`
    temperature: float = 1.0  # of `sample`
    whole: bool = False  # a walk that is not reached leads where it went, not to the nearest road

    @property
    def width(self) -> int:
        """Paths that are followed at the same time."""
        return self.beam_width if self.kind == "beam" else 1


class Node:
    """A road at the end of a path."""

    __slots__ = ("answer", "kept", "log_prob", "parent", "road", "time")

    def __init__(self, road: int, time: int, log_prob: float, parent: Node | None) -> None:
        self.road = road
        self.time = time  # seconds
        self.log_prob = log_prob  # of the path
        self.parent = parent
        self.answer: Answer | None = None  # once it is expanded
        self.kept: Any = None  # what the expander keeps of it for the nodes that follow

    def path(self) -> Path:
        roads, times = [], []
        node: Node | None = self
        while node:
            roads.append(node.road)
            times.append(node.time)
            node = node.parent
        return Path(tuple(reversed(roads)), tuple(reversed(times)), self.log_prob)


Likely = Callable[[int], list[Node]]  # so many nodes that a search will probably wait for later
Search = Generator[tuple[list[Node], Likely], None, Route]


def search(origin: int, destination: int, start: int, settings: SearchSettings, index: int) -> Search:
    """One route. `start` in seconds; `index` tells trips of the same seed apart when sampling."""
    begin = Node(origin, start, 0.0, None)
    if settings.kind == "best-first":
        return best_first(begin, destination, settings.max_expansions)
    if settings.kind == "beam":
        return beam(begin, destination, settings.max_expansions, settings.beam_width)
    if settings.kind == "greedy":
        return walk(begin, destination, settings, _most_probable)
    rng = np.random.default_rng((settings.seed, index))
    return walk(begin, destination, settings, lambda o: _drawn(o, settings.temperature, rng.random()))


class Nearest:
    """The expanded node whose road's centre is nearest to the destination; the first one of equals."""

    def __init__(self) -> None:
        self._metres = math.inf
        self._node: Node | None = None

    def options(self, node: Node) -> Sequence[Option]:
        """Takes the answer of an expanded node."""
        assert node.answer is not None
        (metres, options), node.answer = node.answer, None
        if metres < self._metres:
            self._metres, self._node = metres, node
        return options

    def route(self, expansions: int) -> Route:
        assert self._node is not None  # the origin is expanded first
        return Route(self._node.path(), False, expansions)


def best_first(begin: Node, destination: int, max_expansions: int) -> Search:
    """Expands the most probable path first; best log-probability per road; closed set."""
    order = itertools.count()  # ties: first come, first served
    queue = [(0.0, next(order), begin)]
    best = {begin.road: 0.0}
    closed: set[int] = set()
    nearest, expansions = Nearest(), 0

    def likely(count: int) -> list[Node]:
        entries = heapq.nsmallest(count, queue)
        return [node for _, _, node in entries if node.answer is None and node.road not in closed]

    while queue:
        _, _, node = heapq.heappop(queue)
        if node.road in closed:
            continue
        if node.road == destination:
            return Route(node.path(), True, expansions)
        if expansions == max_expansions:
            break
        closed.add(node.road)
        if node.answer is None:
            yield [node], likely
        expansions += 1
        for road, log_prob, seconds in nearest.options(node):
            total = node.log_prob + log_prob
            if road not in closed and total > best.get(road, -math.inf):
                best[road] = total
                heapq.heappush(queue, (-total, next(order), Node(road, node.time + seconds, total, node)))
    return nearest.route(expansions)


def beam(begin: Node, destination: int, max_expansions: int, width: int) -> Search:
    """Level by level the `width` most probable paths; a road is entered again by a more probable path only."""
    level = [begin]
    best = {begin.road: 0.0}
    nearest, expansions = Nearest(), 0
    while level:
        for node in level:
            if node.road == destination:
                return Route(node.path(), True, expansions)
        level = level[: max_expansions - expansions]
        if not level:
            break
        expansions += len(level)
        yield level, nothing_likely
        found: dict[int, Node] = {}  # best new path to each road of the next level
        for node in level:
            for road, log_prob, seconds in nearest.options(node):
                total = node.log_prob + log_prob
                if total > best.get(road, -math.inf):
                    best[road] = total
                    found[road] = Node(road, node.time + seconds, total, node)
        level = sorted(found.values(), key=lambda node: -node.log_prob)[:width]
    return nearest.route(expansions)


def walk(begin: Node, destination: int, settings: SearchSettings, pick: Callable[[Sequence[Option]], Option]) -> Search:
    """One road after another, never a road twice."""
    node, visited, most = begin, {begin.road}, settings.max_expansions
    nearest = Nearest()
    for step in range(most):
        if node.road == destination:
            return Route(node.path(), True, step)
        yield [node], nothing_likely
        options = [option for option in nearest.options(node) if option[0] not in visited]
        if not options:
            return Route(node.path(), False, step + 1) if settings.whole else nearest.route(step + 1)
        road, log_prob, seconds = pick(options)
        node = Node(road, node.time + seconds, node.log_prob + log_prob, node)
        visited.add(road)
    if settings.whole or node.road == destination:
        return Route(node.path(), node.road == destination, most)
    return nearest.route(most)


def nothing_likely(count: int) -> list[Node]:
    """Of a search that is far from knowing."""
    return []


def _most_probable(options: Sequence[Option]) -> Option:
    return max(options, key=lambda option: option[1])


def _drawn(options: Sequence[Option], temperature: float, uniform: float) -> Option:
    """The option among whose shares a number in [0, 1) falls."""
    peak = max(log_prob for _, log_prob, _ in options)
    ends = list(itertools.accumulate(math.exp((log_prob - peak) / temperature) for _, log_prob, _ in options))
    return options[min(bisect_right(ends, uniform * ends[-1]), len(ends) - 1)]
