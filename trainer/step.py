"""One optimiser step over the examples of one or several micro-batches, and the same sums without a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.clock import Clock
from trainer.data.features import IGNORED
from trainer.errors import TrainingFailed
from trainer.examples import Example
from trainer.losses import chosen_log1p, kl_sum, road_loss_sum, time_loss_sum
from trainer.student.hoser import HOSER


@dataclass(frozen=True)
class Objective:
    """The weights of the loss: road + time + lambda * KL."""

    kl_weight: float  # lambda, times temperature squared if asked for
    temperature: float
    log1p_mean: float  # of step times
    log1p_std: float
    max_norm: float = 1.0


@dataclass
class Sums:
    """Figures summed over steps; divide by the counts for means."""

    steps: int = 0  # steps with a label
    choices: int = 0  # of these, steps with two or more candidates
    unlabelled: int = 0  # steps without a label: no candidate, or the label was filtered out
    kl_steps: int = 0  # steps that the KL counts
    kl_skipped: int = 0  # asked steps of which the answer was not finite
    tied: int = 0  # asked steps with candidates that share a cell
    truncated: int = 0  # asked steps whose history did not fit into the teacher
    road: float = 0.0
    time: float = 0.0  # |y' - y| / max(y, 1) in log1p seconds
    kl: float = 0.0
    hits: int = 0
    choice_hits: int = 0
    seconds_error: float = 0.0  # |s' - s| / max(s, 1)

    def add(self, other: Sums) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def means(self, objective: Objective) -> dict[str, float | None]:
        """The names of the research code for losses, ours for the rest."""
        steps = max(self.steps, 1)
        kl = self.kl / self.kl_steps if self.kl_steps else None
        road, time = self.road / steps, self.time / steps
        return {
            "loss_next_step": road,
            "loss_time_pred": time,
            "loss_kl": kl,
            "loss": road + time + objective.kl_weight * (kl or 0.0),
            "next_step_accuracy": self.hits / steps,
            "choice_accuracy": self.choice_hits / self.choices if self.choices else None,
            "mape_log1p": time,
            "mape_seconds": self.seconds_error / steps,
        }


@dataclass(frozen=True)
class _Parts:
    """Differentiable sums of one example."""

    road: Tensor
    time: Tensor
    kl: Tensor | None


def _kl_mask(example: Example) -> Tensor | None:
    """Steps that the KL counts: asked, with a finite answer for every candidate, [B, T]."""
    if example.target is None:
        return None
    finite = torch.isfinite(example.target.log_probs) | ~example.features.candidate_mask
    return example.target.asked & finite.all(-1)


def _forward(student: HOSER, example: Example, objective: Objective, fuse: float = 0.0) -> tuple[_Parts, Sums]:
    logits, times = student(example.features)
    if fuse and example.target is not None:
        logits = logits + fuse * example.target.log_probs.masked_fill(~example.features.candidate_mask, 0.0)
    labels = example.labels
    labelled = labels.choice != IGNORED
    choice, seconds = labels.choice[labelled], labels.seconds[labelled]
    step_logits, step_times = logits[labelled], times[labelled]
    mean, std = objective.log1p_mean, objective.log1p_std
    road = road_loss_sum(step_logits, choice)
    time = time_loss_sum(step_times, choice, seconds, mean, std)
    sums = _sums(example, step_logits, chosen_log1p(step_times, choice, mean, std), labelled)
    sums.road, sums.time = road.item(), time.item()
    mask = _kl_mask(example)
    if mask is None or example.target is None:
        return _Parts(road, time, None), sums
    kl = kl_sum(example.target.log_probs[mask], logits[mask], objective.temperature)
    sums.kl = kl.item()
    return _Parts(road, time, kl), sums


@torch.no_grad()
def _sums(example: Example, logits_PK: Tensor, log1p_P: Tensor, labelled: Tensor) -> Sums:
    features, labels = example.features, example.labels
    hit = logits_PK.argmax(-1) == labels.choice[labelled]
    several = features.candidate_mask[labelled].sum(-1) > 1
    seconds = labels.seconds[labelled].float()
    error = (torch.expm1(log1p_P.clamp(max=30)).clamp(min=0) - seconds).abs() / seconds.clamp(min=1)
    mask = _kl_mask(example)
    asked = int(example.target.asked.sum()) if example.target else 0
    counted = int(mask.sum()) if mask is not None else 0
    return Sums(
        steps=int(labelled.sum()),
        choices=int(several.sum()),
        unlabelled=int(features.steps.sum()) - int(labelled.sum()),
        kl_steps=counted,
        kl_skipped=asked - counted,
        tied=example.target.tied if example.target else 0,
        truncated=example.target.truncated if example.target else 0,
        hits=int(hit.sum()),
        choice_hits=int((hit & several).sum()),
        seconds_error=float(error.sum()),
    )


def optimiser_step(
    student: HOSER, optimizer: Optimizer, examples: Sequence[Example], objective: Objective, clock: Clock
) -> Sums:
    """Means over all valid steps of all micro-batches, gradients clipped, one step. Raises TrainingFailed on NaN."""
    labelled = max(sum(int((e.labels.choice != IGNORED).sum()) for e in examples), 1)
    guided = max(sum(int(mask.sum()) for e in examples if (mask := _kl_mask(e)) is not None), 1)
    total = Sums()
    optimizer.zero_grad(set_to_none=True)
    for example in examples:
        with clock("hoser_forward"):
            parts, sums = _forward(student, example, objective)
            loss = (parts.road + parts.time) / labelled
            if parts.kl is not None:
                loss = loss + objective.kl_weight * parts.kl / guided
        total.add(sums)
        with clock("backward_pass"):
            loss.backward()
    with clock("optimizer_step"):
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), objective.max_norm)
        if not (math.isfinite(norm.item()) and math.isfinite(total.road + total.time + total.kl)):
            raise TrainingFailed("the loss or its gradient is not finite; the weights were left as they were")
        optimizer.step()
    return total


@torch.no_grad()
def measure(student: HOSER, example: Example, objective: Objective, fuse: float = 0.0) -> Sums:
    """The same figures without a gradient; `fuse` adds that much of the target's log-probabilities to the logits."""
    return _forward(student, example, objective, fuse)[1]
