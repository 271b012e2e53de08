"""Trips to training examples: features, labels and the teacher's target of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from trainer.clock import Clock
from trainer.data.batches import Batch, collate
from trainer.data.features import IGNORED, Features, Labels, Network, build_features, build_labels
from trainer.data.top_k import keep_nearest
from trainer.data.trips import Ints, Trips
from trainer.errors import NoAnswer
from trainer.teacher.targets import Target, Targets


@dataclass(frozen=True)
class Example:
    """One (micro-)batch, ready for the student."""

    features: Features
    labels: Labels
    target: Target | None
    missed: int = 0  # steps that were to have a target, had a teacher answered
    own: bool = False  # the student's own routes: no label, the KL is all of their loss


@dataclass(frozen=True)
class Part:
    """Trips of one micro-batch, and whom to ask about them."""

    trips: Trips
    chosen: Ints
    targets: Targets | None = None
    own: bool = False  # the student's own routes


@dataclass(frozen=True)
class Question:
    """A batch before the teacher is asked: all candidates of every step."""

    batch: Batch
    features: Features
    labels: Labels
    own: bool = False

    def answer(self, targets: Targets | None) -> Target | None:
        """Asks; may take long, and may run in another thread. Raises what `targets` raises."""
        return targets.of(self.batch.trip, self.features) if targets else None


@dataclass(frozen=True)
class ExampleMaker:
    """Makes examples from trips of one data set."""

    network: Network
    device: torch.device
    max_steps: int
    angle: str
    clock: Clock
    shared_cells: str = "full"  # or `split`: candidates in one cell share its mass

    def make(self, trips: Trips, chosen: Ints, *, top_k: int = 0, targets: Targets | None = None) -> Example:
        """The chosen trips; `top_k` 0 keeps all candidates, `targets` None asks nobody."""
        question = self.question(Part(trips, chosen))
        return self.example(question, lambda: question.answer(targets), top_k)

    def question(self, part: Part) -> Question:
        """Features and labels of the part's trips."""
        with self.clock("data_wait"):
            batch = collate(part.trips, np.asarray(part.chosen), self.max_steps)
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
            if part.own:
                labels = replace(labels, choice=torch.full_like(labels.choice, IGNORED))
            return Question(batch, features, labels, part.own)

    def example(self, question: Question, answer: Callable[[], Target | None], top_k: int = 0) -> Example:
        """Takes the answer, then applies the candidate filter and the shared-cell rule, in this order."""
        features, labels = question.features, question.labels
        try:
            with self.clock("distill_kl_(teacher)"):
                target = answer()
            missed = target.missed if target else 0
        except NoAnswer:
            target, missed = None, int(features.candidate_mask.any(-1).sum())
        if top_k:
            features, labels, kept = keep_nearest(features, labels, top_k)
            target = target.filtered(kept) if target and kept is not None else target
        if target and self.shared_cells == "split":
            target = replace(target, log_probs=target.split(features.candidate_mask))
        return Example(features, labels, target, missed, question.own)
