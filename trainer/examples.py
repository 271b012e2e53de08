"""Trips to training examples: features, labels and the teacher's target of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from trainer.clock import Clock
from trainer.data.batches import collate
from trainer.data.features import Features, Labels, Network, build_features, build_labels
from trainer.data.top_k import keep_nearest
from trainer.data.trips import Ints, Trips
from trainer.teacher.targets import Target, Targets


@dataclass(frozen=True)
class Example:
    """One (micro-)batch, ready for the student."""

    features: Features
    labels: Labels
    target: Target | None


@dataclass(frozen=True)
class ExampleMaker:
    """Makes examples from trips of one data set."""

    network: Network
    device: torch.device
    max_steps: int
    angle: str
    clock: Clock

    def make(self, trips: Trips, chosen: Ints, *, top_k: int = 0, targets: Targets | None = None) -> Example:
        """The chosen trips; `top_k` 0 keeps all candidates, `targets` None asks nobody."""
        with self.clock("data_wait"):
            batch = collate(trips, np.asarray(chosen), self.max_steps)
        with self.clock("data_transfer"):
            batch = batch.to(self.device)
            destination = batch.roads.gather(1, batch.steps[:, None])[:, 0]
            features = build_features(
                self.network,
                batch.roads[:, :-1],
                batch.times[:, :-1],
                batch.steps,
                destination,
                batch.weekend,
                angle=self.angle,
            )
            labels = build_labels(features, batch.roads[:, 1:], batch.times[:, 1:] - batch.times[:, :-1])
            if top_k:
                features, labels = keep_nearest(features, labels, top_k)
        if targets is None:
            return Example(features, labels, None)
        with self.clock("distill_kl_(teacher)"):
            return Example(features, labels, targets.of(features))
