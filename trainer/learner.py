"""Optimiser steps: the loss over all micro-batches of all ranks, its gradient, one update of the student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.clock import Clock
from trainer.examples import Example
from trainer.micro_batches import parts_by_length
from trainer.precision import Precision
from trainer.ranks import Ranks
from trainer.step import Loss, Objective, Sums, counts, loss_of
from trainer.student.hoser import HOSER


@dataclass(frozen=True)
class Learner:
    """A student, its optimiser and what it is trained for."""

    student: HOSER
    optimizer: Optimizer
    objective: Objective
    clock: Clock = field(default_factory=Clock)
    ranks: Ranks = field(default_factory=Ranks)
    precision: Precision = field(default_factory=Precision)

    def step(self, examples: Sequence[Example]) -> tuple[Sums, bool]:
        """One step over the examples of all ranks: means over all their valid steps, gradient clipped.

        Returns the figures of all ranks' examples, and whether the step was taken: a loss or gradient that is not
        finite leaves the weights as they are. Raises RankLost.
        """
        totals = torch.zeros(2, dtype=torch.float64, device=self.student.road2zone.device)
        for example in examples:
            totals += counts(example)
        labelled, guided = self.ranks.sum(totals).clamp(min=1).float()
        parts = [part for example in examples for part in parts_by_length(example)]
        while True:
            figures = self._gradient(parts, labelled, guided)
            with self.clock("optimizer_step"):
                sums, taken, again = self._update(self.ranks.sum(figures))
            if not again:
                return sums, taken

    def _gradient(self, parts: Sequence[Example], labelled: Tensor, guided: Tensor) -> Tensor:
        """Leaves the gradient of all ranks' parts in the parameters, scaled; the figures of this rank's parts."""
        self.optimizer.zero_grad(set_to_none=True)
        figures = torch.zeros(len(fields(Sums)), dtype=torch.float64, device=labelled.device)
        with self.clock("hoser_forward"):
            embedded = self.student.embed()
        leaves = embedded.leaves()
        for part in parts:
            with self.clock("hoser_forward"), self.precision.autocast():
                loss = loss_of(self.student, part, self.objective, leaves)
            with self.clock("backward_pass"):
                self.precision.scaled(self._weighted(loss, labelled, guided)).backward()
            figures += loss.figures
        with self.clock("backward_pass"):
            embedded.backward(leaves)
            self.ranks.sum_gradients(self.student.parameters())
        return figures

    def _weighted(self, loss: Loss, labelled: Tensor, guided: Tensor) -> Tensor:
        total = (loss.road + loss.time) / labelled
        return total if loss.kl is None else total + self.objective.kl_weight * loss.kl / guided

    def _update(self, figures: Tensor) -> tuple[Sums, bool, bool]:
        """The figures, whether the weights were updated, and whether a smaller scale may help where they were not."""
        self.precision.unscale(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.objective.max_norm)
        *values, size = torch.cat([figures, norm.double()[None]]).tolist()  # one wait for the device
        finite = math.isfinite(sum(values))
        taken = finite and math.isfinite(size)
        if taken:
            self.optimizer.step()
        again = self.precision.after(taken=taken) and finite
        return Sums.of(values) if taken else Sums(), taken, again
