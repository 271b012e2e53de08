"""The navigator: scores of the candidates for the next road, and the time that each would take.

B trips, T steps, K candidates, d road channels, E = 2 d trajectory channels. Names are the original's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Navigator(nn.Module):
    """logit = v . tanh(q [trajectory, destination zone] + k [candidate, distance, angle])."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.metric_distance_proj = nn.Linear(1, d)
        self.metric_angle_proj = nn.Linear(1, d)
        self.q_proj = nn.Linear(3 * d, hidden, bias=False)
        self.k_proj = nn.Linear(3 * d, hidden, bias=False)
        self.v_proj = nn.Linear(hidden, 1, bias=False)
        self.time_estimator_linear_1 = nn.Linear(2 * d, d // 2)
        self.time_estimator_linear_2 = nn.Linear(d, d // 2)
        self.time_estimator_linear_3 = nn.Linear(d, 1)

    def forward(
        self,
        trajectory_BTE: Tensor,
        destination_Bd: Tensor,
        candidate_BTKd: Tensor,
        distance_BTK: Tensor,
        angle_BTK: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logits and normalised times, each [B, T, K]."""
        destination = destination_Bd[:, None].expand(-1, trajectory_BTE.shape[1], -1)
        query = self.q_proj(torch.cat([trajectory_BTE, destination], dim=-1))
        distance = self.metric_distance_proj(distance_BTK[..., None])
        angle = self.metric_angle_proj(angle_BTK[..., None])
        key = self.k_proj(torch.cat([candidate_BTKd, distance, angle], dim=-1))
        logits: Tensor = self.v_proj(torch.tanh(query[:, :, None] + key)).squeeze(-1)
        return logits, self._times(trajectory_BTE, candidate_BTKd)

    def _times(self, trajectory: Tensor, candidate: Tensor) -> Tensor:
        here = self.time_estimator_linear_1(trajectory)[:, :, None].expand(-1, -1, candidate.shape[2], -1)
        there = self.time_estimator_linear_2(candidate)
        times: Tensor = self.time_estimator_linear_3(F.gelu(torch.cat([here, there], dim=-1))).squeeze(-1)
        return times
