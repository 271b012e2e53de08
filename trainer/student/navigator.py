"""The navigator: scores of the candidates for the next road, and the time that each would take.

R roads, P steps, S slots (a candidate of a step), d road channels, h hidden, E = 2 d trajectory channels. Names are
the original's. What depends on a road alone is computed once for every road, and what is linear in a number is applied
to the number: no slot ever holds an embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RoadTables(NamedTuple):
    """Every road as a candidate."""

    key: Tensor  # [R, h]: the part of a candidate's key that is not distance or angle
    time: Tensor  # [R]: the part of its time that does not depend on the step


class Slots(NamedTuple):
    """The candidates of all steps, side by side."""

    step: Tensor  # [S] int64 in 0..P - 1
    road: Tensor  # [S] int64
    metrics: Tensor  # [S, 2] float32: distance and angle


class Navigator(nn.Module):
    """logit = v . tanh(q [trajectory, destination zone] + k [candidate, distance, angle]);
    time = linear_3 gelu [linear_1 trajectory, linear_2 candidate], a part of the step's plus one of the road's.
    """

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

    def tables(self, road_Rd: Tensor) -> RoadTables:
        """What each road brings along as a candidate, wherever it is one."""
        of_road, of_distance, of_angle = self.k_proj.weight.chunk(3, dim=1)
        constant = of_distance @ self.metric_distance_proj.bias + of_angle @ self.metric_angle_proj.bias
        _, of_there = self.time_estimator_linear_3.weight.chunk(2, dim=1)
        there = F.gelu(self.time_estimator_linear_2(road_Rd))
        return RoadTables(F.linear(road_Rd, of_road, constant), F.linear(there, of_there).squeeze(-1))

    def forward(self, x_PE: Tensor, destination_Pd: Tensor, tables: RoadTables, slots: Slots) -> tuple[Tensor, Tensor]:
        """Logits and normalised times, each [S]."""
        _, of_distance, of_angle = self.k_proj.weight.chunk(3, dim=1)
        per_metric = torch.cat(
            [of_distance @ self.metric_distance_proj.weight, of_angle @ self.metric_angle_proj.weight], dim=1
        )
        query = self.q_proj(torch.cat([x_PE, destination_Pd], dim=-1))
        known = query.index_select(0, slots.step) + tables.key.index_select(0, slots.road)
        logits = self.v_proj(torch.tanh(known + F.linear(slots.metrics, per_metric))).squeeze(-1)
        of_here, _ = self.time_estimator_linear_3.weight.chunk(2, dim=1)
        here = F.linear(F.gelu(self.time_estimator_linear_1(x_PE)), of_here, self.time_estimator_linear_3.bias)
        return logits, here.squeeze(-1).index_select(0, slots.step) + tables.time.index_select(0, slots.road)
