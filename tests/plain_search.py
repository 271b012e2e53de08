"""Route search, plain and readable: the oracle of the fast one.

One trip after another; every call of the student computes the whole path anew.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data.batches import is_weekend
from trainer.data.features import Network, build_features
from trainer.generate.route import Path, Route
from trainer.generate.search import SearchSettings
from trainer.student.hoser import HOSER

MAX_LOG1P_SECONDS = 16.0


@dataclass(frozen=True)
class NextRoads:
    """The roads that can follow one path; empty at a dead end."""

    roads: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    seconds: NDArray[np.int64]


class Walker:
    """A trained student on its road network. Embeddings are computed once."""

    def __init__(
        self,
        student: HOSER,
        network: Network,
        *,
        log1p_mean: float,
        log1p_std: float,
        max_steps: int,
        angle: str = "original",
    ) -> None:
        self._student = student.eval()
        self._network = network
        self._mean, self._std = log1p_mean, log1p_std
        self._max_steps = max_steps
        self._angle = angle
        self.forwards = 0  # calls of the student
        with torch.no_grad():
            self._embeddings = student.embed()

    @property
    def network(self) -> Network:
        return self._network

    @torch.no_grad()
    def next_roads(self, paths: Sequence[Path], destination: int) -> list[NextRoads]:
        """For every path the roads that can follow it on the way to one destination. Paths have equal length."""
        self.forwards += 1
        device = self._network.successors.device
        roads = torch.tensor([p.roads[-self._max_steps :] for p in paths], device=device)
        times = torch.tensor([p.times[-self._max_steps :] for p in paths], device=device)
        features = build_features(
            self._network,
            roads,
            times,
            torch.full((len(paths),), roads.shape[1], device=device),
            torch.full((len(paths),), destination, device=device),
            torch.from_numpy(is_weekend(np.array([p.times[0] for p in paths]))).to(device),
            angle=self._angle,
        )
        logits, predicted = self._student(features, self._embeddings)
        log_probs = logits[:, -1].double().log_softmax(-1).cpu().numpy()
        logs = (predicted[:, -1] * self._std + self._mean).clamp(0, MAX_LOG1P_SECONDS)
        seconds = torch.expm1(logs).round().long().cpu().numpy()
        candidates = features.candidates[:, -1].cpu().numpy()
        mask = features.candidate_mask[:, -1].cpu().numpy()
        return [NextRoads(candidates[i, m], log_probs[i, m], seconds[i, m]) for i, m in enumerate(mask)]


def plain_search(
    walker: Walker, origin: int, destination: int, start: int, settings: SearchSettings, index: int
) -> Route:
    """One route. `start` in seconds; `index` tells trips of the same seed apart when sampling."""
    begin = Path((origin,), (start,))
    if settings.kind == "best-first":
        return best_first(walker, begin, destination, settings.max_expansions)
    if settings.kind == "beam":
        return beam(walker, begin, destination, settings.max_expansions, settings.beam_width)
    if settings.kind == "greedy":
        return walk(walker, begin, destination, settings.max_expansions, None, 1.0)
    rng = np.random.default_rng((settings.seed, index))
    return walk(walker, begin, destination, settings.max_expansions, rng, settings.temperature)


def extensions(path: Path, following: NextRoads) -> list[Path]:
    """The path with each road that can follow."""
    return [
        Path((*path.roads, int(road)), (*path.times, path.times[-1] + int(seconds)), path.log_prob + float(log_prob))
        for road, log_prob, seconds in zip(following.roads, following.log_probs, following.seconds, strict=True)
    ]


class Nearest:
    """The expanded path whose road's centre is nearest to the destination; the first one of equals."""

    def __init__(self, walker: Walker, destination: int) -> None:
        self._walker, self._destination = walker, destination
        self._metres = np.inf
        self.path: Path | None = None

    def see(self, path: Path) -> None:
        network = self._walker.network
        metres = float(network.distance_m(*network.successors.new_tensor([path.roads[-1], self._destination])))
        if metres < self._metres:
            self._metres, self.path = metres, path

    def route(self, expansions: int) -> Route:
        assert self.path is not None  # the origin is expanded first
        return Route(self.path, False, expansions)


def best_first(walker: Walker, begin: Path, destination: int, max_expansions: int) -> Route:
    """Expands the most probable path first; best log-probability per road; closed set."""
    order = itertools.count()  # ties: first come, first served
    queue = [(0.0, next(order), begin)]
    best = {begin.roads[-1]: 0.0}
    closed: set[int] = set()
    nearest, expansions = Nearest(walker, destination), 0
    while queue:
        _, _, path = heapq.heappop(queue)
        road = path.roads[-1]
        if road in closed:
            continue
        if road == destination:
            return Route(path, True, expansions)
        if expansions == max_expansions:
            break
        closed.add(road)
        nearest.see(path)
        expansions += 1
        for longer in extensions(path, walker.next_roads([path], destination)[0]):
            after = longer.roads[-1]
            if after not in closed and longer.log_prob > best.get(after, -np.inf):
                best[after] = longer.log_prob
                heapq.heappush(queue, (-longer.log_prob, next(order), longer))
    return nearest.route(expansions)


def beam(walker: Walker, begin: Path, destination: int, max_expansions: int, width: int) -> Route:
    """Level by level the `width` most probable paths; a road is entered again by a more probable path only."""
    level = [begin]
    best = {begin.roads[-1]: 0.0}
    nearest, expansions = Nearest(walker, destination), 0
    while level:
        for path in level:
            if path.roads[-1] == destination:
                return Route(path, True, expansions)
        level = level[: max_expansions - expansions]
        if not level:
            break
        for path in level:
            nearest.see(path)
        expansions += len(level)
        following = walker.next_roads(level, destination)
        found: dict[int, Path] = {}  # best new path to each road of the next level
        for path, roads in zip(level, following, strict=True):
            for longer in extensions(path, roads):
                after = longer.roads[-1]
                if longer.log_prob > best.get(after, -np.inf):
                    best[after] = longer.log_prob
                    found[after] = longer
        level = sorted(found.values(), key=lambda p: -p.log_prob)[:width]
    return nearest.route(expansions)


def walk(
    walker: Walker,
    begin: Path,
    destination: int,
    max_steps: int,
    rng: np.random.Generator | None,
    temperature: float,
) -> Route:
    """One road after another, the most probable (`rng` None) or a drawn one, never a road twice."""
    path, visited = begin, {begin.roads[-1]}
    nearest = Nearest(walker, destination)
    for step in range(max_steps):
        if path.roads[-1] == destination:
            return Route(path, True, step)
        nearest.see(path)
        options = [p for p in extensions(path, walker.next_roads([path], destination)[0]) if p.roads[-1] not in visited]
        if not options:
            return nearest.route(step + 1)
        weights = np.exp(np.array([p.log_prob - path.log_prob for p in options]) / temperature)
        pick = int(weights.argmax()) if rng is None else int(rng.choice(len(options), p=weights / weights.sum()))
        path = options[pick]
        visited.add(path.roads[-1])
    reached = path.roads[-1] == destination
    return Route(path, True, max_steps) if reached else nearest.route(max_steps)
