"""What the KL term pulls towards: log-probabilities of each step's candidates, from a teacher or uniform.

B trips, T steps, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.features import Features, step_mask
from trainer.teacher.protocol import Ints, Query, Teacher


@dataclass(frozen=True)
class Target:
    """One batch's answer. The KL renormalises on the candidates that are left."""

    log_probs: Tensor  # [B, T, K] float32, -inf where masked
    asked: Tensor  # [B, T] bool: steps that have a target
    cells: Tensor | None = None  # [B, T, K] int64 the candidates' grid cells; None where there is no grid
    truncated: int = 0  # steps whose history did not fit into the teacher
    missed: int = 0  # steps that are not asked only because no teacher answered

    def filtered(self, kept: Tensor) -> Target:
        """The kept candidates [B, T, k] only."""
        cells = self.cells.gather(-1, kept) if self.cells is not None else None
        return replace(self, log_probs=self.log_probs.gather(-1, kept), cells=cells)

    def tied(self, mask: Tensor) -> Tensor:
        """Asked steps of which several candidates (`mask`, [B, T, K]) lie in one cell, [B, T]."""
        if self.cells is None:
            return torch.zeros_like(self.asked)
        slots = mask & self.asked[..., None]
        return ((same_cell(self.cells, slots) > 1) & slots).any(-1)

    def split(self, mask: Tensor) -> Tensor:
        """Log-probabilities with which candidates in one cell share its mass."""
        if self.cells is None:
            return self.log_probs
        return split_shared(self.log_probs, self.cells, mask & self.asked[..., None])


class Targets(Protocol):
    """Gives a batch's target. Implementations differ in whom they ask."""

    def of(self, trips: Ints, features: Features) -> Target:
        """Of the trips [B] of a split, with all candidates of every step; may be called from several threads."""
        ...


def asked_steps(features: Features, positions: str) -> Tensor:
    """Steps with candidates: all of a trip's or its last one, [B, T]."""
    valid = features.candidate_mask.any(-1)
    if positions == "all":
        return valid
    last = torch.arange(valid.shape[1], device=valid.device) == features.steps[:, None] - 1
    return valid & last


class UniformTargets:
    """The control: the same KL against the uniform distribution."""

    def __init__(self, positions: str = "all") -> None:
        self._positions = positions

    def of(self, trips: Ints, features: Features) -> Target:
        mask = features.candidate_mask
        equal = -torch.log(mask.sum(-1, keepdim=True).float())
        log_probs = equal.expand(mask.shape).masked_fill(~mask, -torch.inf)
        return Target(log_probs, asked_steps(features, self._positions))


class TeacherTargets:
    """Asks a served teacher about every step of every trip of a batch, in one query."""

    def __init__(
        self,
        teacher: Teacher,
        road_to_token: NDArray[np.int32],
        *,
        window: int = 0,
        positions: str = "all",
    ) -> None:
        """`window` 0: the whole prefix."""
        self._teacher = teacher
        self._road_to_token = torch.from_numpy(road_to_token.astype(np.int64))
        self._window = window
        self._positions = positions

    def of(self, trips: Ints, features: Features) -> Target:
        device = features.roads.device
        token = self._road_to_token.to(device)
        asked = asked_steps(features, self._positions)
        cells = token[features.candidates]
        answer = self._teacher.score(make_query(features, asked, token, cells, self._window, self._positions))
        log_probs = torch.full(cells.shape, -torch.inf, device=device)
        slots = features.candidate_mask & asked[..., None]
        log_probs[slots] = torch.from_numpy(answer.log_probs.copy()).to(device)
        return Target(log_probs, asked, cells, answer.truncated)


def make_query(features: Features, asked: Tensor, token: Tensor, cells: Tensor, window: int, positions: str) -> Query:
    """The batch as ragged arrays in row-major order; a step without candidates has a count of zero."""
    inside = step_mask(features.steps, features.roads.shape[1])
    slots = features.candidate_mask & asked[..., None]
    steps = features.steps.cpu().numpy()
    last = torch.arange(inside.shape[1], device=inside.device) == features.steps[:, None] - 1
    scored = inside if positions == "all" else last
    return Query(
        tokens=token[features.roads][inside].cpu().numpy().astype(np.int32),
        lengths=steps,
        scored=steps if positions == "all" else np.ones_like(steps),
        window=window,
        candidates=cells[slots].cpu().numpy().astype(np.int32),
        counts=slots.sum(-1)[scored].cpu().numpy(),
    )


def same_cell(cells: Tensor, slots: Tensor) -> Tensor:
    """How many of its step's candidates share each candidate's cell, itself included, [B, T, K]."""
    equal = (cells[..., :, None] == cells[..., None, :]) & slots[..., None, :]
    return equal.sum(-1).clamp(min=1)


def split_shared(log_probs: Tensor, cells: Tensor, slots: Tensor) -> Tensor:
    """Candidates in one cell share its mass; renormalised on the candidates."""
    shared = log_probs - torch.log(same_cell(cells, slots).float())
    empty = ~slots.any(-1, keepdim=True)
    return shared - torch.logsumexp(shared.masked_fill(empty, 0), -1, keepdim=True)
