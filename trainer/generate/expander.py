"""What the student says of many paths at once: log-probabilities and travel times of the roads that can follow.

Of every node one new step is computed; the steps before it are kept (see Prefixes). A step's place is free again as
soon as no path needs it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.data.features import Features, Network, build_features
from trainer.generate.search import Answer, Node
from trainer.student.hoser import HOSER
from trainer.student.prefixes import Attend, Prefixes, attend

MAX_LOG1P_SECONDS = 16.0  # a hundred days on one road: only a broken student says more
ROWS = 32  # rows are filled up to a multiple: fewer, or a rest, would be added and rounded in another way
PLACES = 1 << 17  # 512 MiB of keys and values at the usual sizes
NOWHERE = 0  # the place of rows that fill up

Question = tuple[Node, int, bool]  # what can follow the node, its trip's destination, whether the trip is at a weekend
Row = tuple[int, ...]  # place, parent's place, road, time, destination, weekend


@dataclass(frozen=True)
class StepTimes:
    """Mean and standard deviation of log1p of the step times that the student was trained on."""

    log1p_mean: float
    log1p_std: float

    def seconds(self, predicted: Tensor) -> Tensor:
        """Whole seconds of normalised times, int64."""
        logs = (predicted * self.log1p_std + self.log1p_mean).clamp(0, MAX_LOG1P_SECONDS)
        return torch.expm1(logs).round().long()


class Place:
    """Where a step lies among the prefixes; given back when no node holds it any more."""

    __slots__ = ("_free", "index", "steps")

    def __init__(self, free: list[int], steps: int) -> None:
        self._free = free
        self.index = free.pop()
        self.steps = steps  # of the path

    def __del__(self) -> None:
        self._free.append(self.index)


class Expander:
    """A student on its road network, and what it keeps of the paths that are followed."""

    def __init__(
        self,
        student: HOSER,
        network: Network,
        times: StepTimes,
        *,
        max_steps: int,
        angle: str = "original",
        places: int = PLACES,
        attend: Attend = attend,
    ) -> None:
        self._student = student.eval()
        self._network = network
        self._times, self._max_steps, self._angle = times, max_steps, angle
        self._places = places
        self._free = list(range(places - 1, NOWHERE, -1))
        with torch.no_grad():
            self._known = student.embed()
            zones = self._known.zones[student.road2zone]
            self._prefixes = Prefixes(student.trajectory_encoder, self._known.roads, zones, places, attend)

    @property
    def network(self) -> Network:
        return self._network

    @property
    def free(self) -> int:
        """Nodes that can be expanded before some path is dropped."""
        return len(self._free)

    @property
    def roomy(self) -> bool:
        """Whether more than a quarter of the places is free."""
        return 4 * len(self._free) > self._places

    @torch.no_grad()
    def expand(self, asked: Sequence[Question]) -> None:
        """Gives every node its answer. Needs a free place for each."""
        rows = [self._row(*question) for question in asked]
        long = [node.kept.steps > self._max_steps for node, _, _ in asked]
        if any(long):
            for question in itertools.compress(asked, long):
                self._expand_long(*question)
            short = [not each for each in long]
            asked, rows = list(itertools.compress(asked, short)), list(itertools.compress(rows, short))
        if rows:
            self._expand_short(asked, rows)

    def _row(self, node: Node, destination: int, weekend: bool) -> Row:
        before: Place | None = node.parent.kept if node.parent else None
        node.kept = Place(self._free, before.steps + 1 if before else 1)
        return node.kept.index, before.index if before else -1, node.road, node.time, destination, weekend

    def _expand_short(self, asked: Sequence[Question], rows: list[Row]) -> None:
        """By the one new step of each path."""
        rows += [(NOWHERE, -1, *rows[0][2:])] * (-len(rows) % ROWS)
        columns = torch.from_numpy(np.array(rows).T.copy()).to(self._network.successors.device)
        places, parents, roads, times, destination, weekend = columns
        features = self._features(roads[:, None], times[:, None], destination, weekend.bool())
        hidden = self._prefixes.extend(places, parents, features)
        logits, predicted = self._student.navigate(hidden[:, None], features, self._known, ROWS)
        for (node, _, _), answer in zip(asked, self._answers(features, logits, predicted), strict=False):
            node.answer = answer  # the last rows fill up

    def _expand_long(self, node: Node, destination: int, weekend: bool) -> None:
        """A path's first steps are beyond the student's memory: what it keeps of the others does not hold any more."""
        path, device = node.path(), self._network.successors.device
        roads, times = (torch.tensor([each[-self._max_steps :]], device=device) for each in (path.roads, path.times))
        end, weekends = torch.tensor([destination], device=device), torch.tensor([weekend], device=device)
        features = self._features(roads, times, end, weekends)
        [node.answer] = self._answers(features, *self._student(features, self._known))

    def _features(self, roads: Tensor, times: Tensor, destination: Tensor, weekend: Tensor) -> Features:
        steps = torch.full_like(destination, roads.shape[1])
        return build_features(self._network, roads, times, steps, destination, weekend, angle=self._angle)

    def _answers(self, features: Features, logits: Tensor, predicted: Tensor) -> list[Answer]:
        """Of the last steps' candidates."""
        mask = features.candidate_mask[:, -1]
        log_probs = logits[:, -1].double().log_softmax(-1)[mask]
        seconds = self._times.seconds(predicted[:, -1])[mask]
        columns = features.candidates[:, -1][mask].tolist(), log_probs.tolist(), seconds.tolist()
        options = list(zip(*columns, strict=True))
        metres = self._network.distance_m(features.roads[:, -1], features.destination).tolist()
        ends = mask.sum(-1).cumsum(0).tolist()
        return [(m, options[a:b]) for m, a, b in zip(metres, [0, *ends], ends, strict=False)]
