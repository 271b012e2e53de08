"""What the student says of paths: log-probabilities and travel times of the roads that can follow.

The plain form: every call computes the whole path anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.clock import Clock
from trainer.data.batches import is_weekend
from trainer.data.features import Network, build_features
from trainer.student.hoser import HOSER

MAX_LOG1P_SECONDS = 16.0  # a hundred days on one road: only a broken student says more


@dataclass(frozen=True)
class Path:
    """Roads from the origin on, the time at which each is entered, and the sum of log-probabilities."""

    roads: tuple[int, ...]
    times: tuple[int, ...]  # seconds
    log_prob: float = 0.0


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
        self.clock = Clock()
        self.forwards = 0  # calls of the student
        with torch.no_grad():
            self._embeddings = student.embed()

    @property
    def network(self) -> Network:
        return self._network

    def next_roads(self, paths: Sequence[Path], destination: int) -> list[NextRoads]:
        """For every path the roads that can follow it on the way to one destination. Paths have equal length."""
        self.forwards += 1
        with self.clock("forward"):
            return self._next_roads(paths, destination)

    @torch.no_grad()
    def _next_roads(self, paths: Sequence[Path], destination: int) -> list[NextRoads]:
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
