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

    def step(self, examples: Sequence[Example]) -> tuple[Sums, bool]:
        """One step over the examples of all ranks: means over all their valid steps, gradient clipped.

        Returns the figures of all ranks' examples, and whether the step was taken: a loss or gradient that is not
        finite leaves the weights as they are. Raises RankLost.
        """
        device = self.student.road2zone.device
        self.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        figures = torch.zeros(len(fields(Sums)), dtype=torch.float64, device=device)
        for example in examples:
            totals += counts(example)
        labelled, guided = self.ranks.sum(totals).clamp(min=1).float()
        with self.clock("hoser_forward"):
            embedded = self.student.embed()
        leaves = embedded.leaves()
        for example in (part for whole in examples for part in parts_by_length(whole)):
            with self.clock("hoser_forward"):
                loss = loss_of(self.student, example, self.objective, leaves)
            with self.clock("backward_pass"):
                self._weighted(loss, labelled, guided).backward()
            figures += loss.figures
        with self.clock("backward_pass"):
            embedded.backward(leaves)
            self.ranks.sum_gradients(self.student.parameters())
        with self.clock("optimizer_step"):
            return self._update(self.ranks.sum(figures))

    def _weighted(self, loss: Loss, labelled: Tensor, guided: Tensor) -> Tensor:
        total = (loss.road + loss.time) / labelled
        return total if loss.kl is None else total + self.objective.kl_weight * loss.kl / guided

    def _update(self, figures: Tensor) -> tuple[Sums, bool]:
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.objective.max_norm)
        *values, size = torch.cat([figures, norm.double()[None]]).tolist()  # one wait for the device
        finite = math.isfinite(sum(values) + size)
        if finite:
            self.optimizer.step()
        return Sums.of(values) if finite else Sums(), finite
