"""The loss of an example and the figures of it, summed over its steps. Means are made where the counts are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from trainer.data.features import IGNORED
from trainer.examples import Example
from trainer.losses import chosen_log1p, kl_sum, road_loss_sum, time_loss_sum
from trainer.micro_batches import parts_by_length
from trainer.student.hoser import HOSER, Embeddings


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
    kl_missed: int = 0  # steps that nobody answered, where the policy is to go on without
    tied: int = 0  # asked steps with candidates that share a cell
    truncated: int = 0  # asked steps whose history did not fit into the teacher
    road: float = 0.0
    time: float = 0.0  # |y' - y| / max(y, 1) in log1p seconds
    kl: float = 0.0
    hits: int = 0
    choice_hits: int = 0
    seconds_error: float = 0.0  # |s' - s| / max(s, 1)
    own_steps: int = 0  # of the KL's steps, those of the student's own routes
    own_kl: float = 0.0  # of the KL, their part

    @classmethod
    def of(cls, values: Sequence[float]) -> Sums:
        """From values in the order of the fields."""
        sums = cls()
        for each, value in zip(fields(cls), values, strict=True):
            setattr(sums, each.name, int(value) if isinstance(each.default, int) else value)
        return sums

    def add(self, other: Sums) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def means(self, objective: Objective) -> dict[str, float | None]:
        """The names of the research code for losses, ours for the rest."""
        steps = max(self.steps, 1)
        kl = self.kl / self.kl_steps if self.kl_steps else None
        road, time = self.road / steps, self.time / steps
        own = {"loss_kl_own": self.own_kl / self.own_steps} if self.own_steps else {}
        return {
            "loss_next_step": road,
            "loss_time_pred": time,
            "loss_kl": kl,
            "loss": road + time + objective.kl_weight * (kl or 0.0),
            "next_step_accuracy": self.hits / steps,
            "choice_accuracy": self.choice_hits / self.choices if self.choices else None,
            "mape_log1p": time,
            "mape_seconds": self.seconds_error / steps,
            **own,
        }


@dataclass(frozen=True)
class Loss:
    """Differentiable sums of one example, and all its figures in the order of Sums' fields, float64, on the device."""

    road: Tensor
    time: Tensor
    kl: Tensor | None
    figures: Tensor


def guided_steps(example: Example) -> Tensor | None:
    """Steps that the KL counts: asked, with a finite answer for every candidate, [B, T]."""
    if example.target is None:
        return None
    finite = torch.isfinite(example.target.log_probs) | ~example.features.candidate_mask
    return example.target.asked & finite.all(-1)


def counts(example: Example) -> Tensor:
    """Labelled and guided steps, float64 [2]: what the sums of road and time, and of the KL, are divided by."""
    labelled = (example.labels.choice != IGNORED).sum()
    guided = guided_steps(example)
    return torch.stack([labelled, labelled.new_zeros(()) if guided is None else guided.sum()]).double()


def loss_of(
    student: HOSER, example: Example, objective: Objective, embeddings: Embeddings | None = None, fuse: float = 0.0
) -> Loss:
    """`fuse` adds that much of the target's log-probabilities to the logits."""
    logits, times = student(example.features, embeddings)
    if fuse and example.target is not None:
        logits = logits + fuse * example.target.log_probs.masked_fill(~example.features.candidate_mask, 0.0)
    labels = example.labels
    labelled = labels.choice != IGNORED
    choice, seconds = labels.choice[labelled], labels.seconds[labelled]
    step_logits, step_times = logits[labelled], times[labelled]
    mean, std = objective.log1p_mean, objective.log1p_std
    road = road_loss_sum(step_logits, choice)
    time = time_loss_sum(step_times, choice, seconds, mean, std)
    mask, kl = guided_steps(example), None
    if mask is not None and example.target is not None:
        kl = kl_sum(example.target.log_probs[mask], logits[mask], objective.temperature)
    figures = _figures(example, labelled, step_logits, chosen_log1p(step_times, choice, mean, std), road, time)
    if kl is not None and mask is not None:
        figures += _kl_figures(example, mask, kl)
    return Loss(road, time, kl, figures)


@torch.no_grad()
def _figures(
    example: Example, labelled: Tensor, logits_PK: Tensor, log1p_P: Tensor, road: Tensor, time: Tensor
) -> Tensor:
    features, labels = example.features, example.labels
    hit = logits_PK.argmax(-1) == labels.choice[labelled]
    several = features.candidate_mask[labelled].sum(-1) > 1
    seconds = labels.seconds[labelled].float()
    error = (torch.expm1(log1p_P.clamp(max=30)).clamp(min=0) - seconds).abs() / seconds.clamp(min=1)
    steps = labelled.sum()
    return _in_order(
        road.device,
        steps=steps,
        choices=several.sum(),
        unlabelled=0 if example.own else features.steps.sum() - steps,
        kl_missed=example.missed,
        road=road,
        time=time,
        hits=hit.sum(),
        choice_hits=(hit & several).sum(),
        seconds_error=error.sum(),
    )


@torch.no_grad()
def _kl_figures(example: Example, guided: Tensor, kl: Tensor) -> Tensor:
    assert example.target is not None
    target, steps = example.target, guided.sum()
    return _in_order(
        kl.device,
        kl=kl,
        kl_steps=steps,
        kl_skipped=target.asked.sum() - steps,
        tied=target.tied(example.features.candidate_mask).sum(),
        truncated=target.truncated,
        own_steps=steps * example.own,
        own_kl=kl * example.own,
    )


def _in_order(device: torch.device, **found: Tensor | float) -> Tensor:
    """Figures by name in the order of Sums' fields, those that are not named zero."""
    values = (torch.as_tensor(found.get(each.name, 0.0), device=device).double() for each in fields(Sums))
    return torch.stack(list(values))


@torch.no_grad()
def measure(student: HOSER, examples: Iterable[Example], objective: Objective, fuse: float = 0.0) -> Sums:
    """The figures of all examples without a gradient; the road network is looked at once."""
    embedded, total = student.embed(), Sums()
    for example in examples:
        for part in parts_by_length(example):
            total.add(Sums.of(loss_of(student, part, objective, embedded, fuse).figures.tolist()))
    return total
