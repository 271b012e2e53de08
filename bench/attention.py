"""The student's relative attention: low-rank form against the plain one, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.compare import Comparison, Way, compare
from bench.plain_student import causal_mask, plain_attention
from trainer.student.trajectory import RelativeAttention

TRIPS, STEPS, WIDTH, HEADS = 16, 96, 256, 2


def measure_attention(runs: int) -> Comparison:
    """One layer of the student's real width over trips of equal length."""
    torch.manual_seed(0)
    layer = RelativeAttention(WIDTH, HEADS, 0.0)
    x = torch.randn(TRIPS, STEPS, WIDTH, requires_grad=True)
    distance, interval = torch.rand(2, TRIPS, STEPS, STEPS)
    relative = torch.stack([distance, interval], dim=-1)
    mask = causal_mask(torch.full((TRIPS,), STEPS), STEPS)

    def way(attention: Callable[[Tensor], Tensor]) -> Way:
        def run() -> NDArray[np.float32]:
            out = attention(x)
            gradient, *_ = torch.autograd.grad(out.square().mean(), [x, *layer.parameters()])
            return torch.cat([out.detach().flatten(), gradient.flatten()]).numpy()

        return run

    return compare(
        f"student attention, {TRIPS} trips of {STEPS} steps: low-rank, against [B, T, T, {WIDTH // HEADS}]",
        TRIPS,
        "trips",
        plain=way(lambda x: plain_attention(layer, x, relative, mask)),
        ours=way(lambda x: layer(x, (distance, interval))),
        runs=runs,
    )
