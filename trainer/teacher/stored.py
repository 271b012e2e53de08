"""A batch's target from a label store; what the store lacks is asked once and kept.

B trips, T steps, K candidates.
"""

from __future__ import annotations

import time
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.features import Features
from trainer.data.trips import Ints
from trainer.errors import NoAnswer, TeacherUnavailable
from trainer.teacher.store import LabelStore
from trainer.teacher.targets import Target, Targets, asked_steps

SYNC_S = 10.0  # of new answers a power failure may take; a killed process loses none


class StoredTargets:
    """Reads a store; the filter, the shared-cell rule and the temperature come later, in this order."""

    def __init__(
        self,
        store: LabelStore,
        ask: Targets | None,
        road_to_token: NDArray[np.int32],
        *,
        longest_history: int | None,
        positions: str = "all",
    ) -> None:
        """`ask` must ask about all positions; without it the store must have every trip.

        `longest_history`: tokens that fit into the teacher's block behind SOT; None where a window is shorter.
        """
        self._store, self._ask = store, ask
        self._road_to_token = torch.from_numpy(road_to_token.astype(np.int64))
        self._longest, self._positions = longest_history, positions
        self._synced = time.monotonic()

    @property
    def share(self) -> float:
        """Of the split's trips, how many have labels."""
        return self._store.share

    def of(self, trips: Ints, features: Features) -> Target:
        """The target of trips of the store's split.

        Answers that were asked just now count as they will be read later, rounded to float16. Where `ask` has NoAnswer,
        trips that are not kept have no target. Raises TeacherUnavailable, and what else `ask` raises.
        """
        there = np.ones(len(trips), bool)
        try:
            self._fill(trips, features)
        except NoAnswer:
            there = self._store.has(trips)
        device = features.roads.device
        values = torch.from_numpy(self._store.read(trips[there])).to(device).float()
        rows = torch.from_numpy(there).to(device)
        wanted = asked_steps(features, self._positions)
        asked = wanted & rows[:, None]
        everything = torch.full(features.candidates.shape, -torch.inf, device=device)
        log_probs = everything.masked_scatter(features.candidate_mask & rows[:, None, None], values)
        log_probs = log_probs.masked_fill(~asked[..., None], -torch.inf)
        cells = self._road_to_token.to(device)[features.candidates]
        missed = 0 if there.all() else int((wanted & ~asked).sum())
        return Target(log_probs, asked, cells, self._truncated(features.steps[rows]), missed)

    def _fill(self, trips: Ints, features: Features) -> None:
        missing = np.flatnonzero(~self._store.has(trips))
        if not len(missing):
            return
        if self._ask is None:
            raise TeacherUnavailable(
                f"{self._store.folder}: lacks labels of {len(missing)} of a batch's {len(trips)} trips, and no teacher "
                "is there to ask; run `trainer label` first"
            )
        rows = torch.from_numpy(missing).to(features.roads.device)
        some = Features(*(getattr(features, field.name)[rows] for field in fields(features)))
        answer = self._ask.of(trips[missing], some)
        self._store.write(trips[missing], answer.log_probs[some.candidate_mask].cpu().numpy())
        if time.monotonic() - self._synced > SYNC_S:
            self._synced = time.monotonic()
            self._store.sync()

    def _truncated(self, steps: Tensor) -> int:
        if self._longest is None:
            return 0
        beyond = (steps - self._longest).clamp(min=0)
        return int((beyond if self._positions == "all" else beyond.clamp(max=1)).sum())
