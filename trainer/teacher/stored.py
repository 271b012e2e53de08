"""A batch's target from a label store; what the store lacks is asked once and kept.

B trips, T steps, K candidates, k of them kept by the top-k filter.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.features import Features
from trainer.data.trips import Ints
from trainer.errors import TeacherUnavailable
from trainer.teacher.store import LabelStore
from trainer.teacher.targets import Target, TeacherTargets, asked_steps, same_cell


class StoredTargets:
    """Reads a store in the order: top-k, shared-cell rule, renormalise. The loss tempers."""

    def __init__(
        self,
        store: LabelStore,
        ask: TeacherTargets | None,
        road_to_token: NDArray[np.int32],
        *,
        longest_history: int,
        positions: str = "all",
        shared_cells: str = "full",
    ) -> None:
        """`ask` must ask about all positions under the `full` cell rule; without it the store must have every trip.

        `longest_history`: tokens that a step sees without being cut by the teacher's block; any large number where a
        window is what cuts it.
        """
        self._store, self._ask = store, ask
        self._road_to_token = torch.from_numpy(road_to_token.astype(np.int64))
        self._longest = longest_history
        self._positions, self._shared_cells = positions, shared_cells

    def of(self, trips: Ints, features: Features, kept: Tensor | None = None) -> Target:
        """The target of trips of the store's split, whose features hold all candidates.

        `kept` [B, T, k]: which candidates the target is about; None: all. Answers that were asked just now count as
        they will be read later, rounded to float16. Raises TeacherUnavailable.
        """
        self._fill(trips, features)
        device = features.roads.device
        values = torch.from_numpy(self._store.read(trips)).to(device).float()
        asked = asked_steps(features, self._positions)
        mask = features.candidate_mask
        log_probs = torch.full(mask.shape, -torch.inf, device=device).masked_scatter(mask, values)
        cells = self._road_to_token.to(device)[features.candidates]
        slots = mask & asked[..., None]
        if kept is not None:
            log_probs, cells, slots = (x.gather(-1, kept) for x in (log_probs, cells, slots))
        mates = same_cell(cells, slots)
        if self._shared_cells == "split":
            log_probs = log_probs - torch.log(mates.float())
        tied = int(((mates > 1) & slots).any(-1).sum())
        return Target(renormalised(log_probs, slots), asked, self._truncated(features.steps), tied)

    def _fill(self, trips: Ints, features: Features) -> None:
        missing = np.flatnonzero(~self._store.has(trips))
        if not len(missing):
            return
        if self._ask is None:
            raise TeacherUnavailable(
                f"{self._store.folder}: lacks labels of {len(missing)} of a batch's {len(trips)} trips, and no teacher is "
                "there to ask; run `trainer label` first"
            )
        rows = torch.from_numpy(missing).to(features.roads.device)
        some = Features(*(getattr(features, field.name)[rows] for field in fields(features)))
        answer = self._ask.of(some)
        self._store.write(trips[missing], answer.log_probs[some.candidate_mask].cpu().numpy())

    def _truncated(self, steps: Tensor) -> int:
        beyond = (steps - self._longest).clamp(min=0)
        return int((beyond if self._positions == "all" else beyond.clamp(max=1)).sum())


def renormalised(log_probs: Tensor, slots: Tensor) -> Tensor:
    """Log-probabilities that sum to one over each step's slots, -inf elsewhere; NaN where one is not finite."""
    log_probs = log_probs.masked_fill(~slots, -torch.inf)
    empty = ~slots.any(-1, keepdim=True)
    return (log_probs - log_probs.masked_fill(empty, 0).logsumexp(-1, keepdim=True)).masked_fill(~slots, -torch.inf)
