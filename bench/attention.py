"""The student's relative attention: low-rank form against the plain one, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.compare import Comparison, Way, compare
from bench.plain import plain_attention
from trainer.student.trajectory import RelativeAttention, attention_mask

TRIPS, STEPS, WIDTH, HEADS = 16, 96, 256, 2


def measure_attention(runs: int) -> Comparison:
    """One layer of the student's real width over padded trips."""
    torch.manual_seed(0)
    layer = RelativeAttention(WIDTH, HEADS, 0.0)
    x = torch.randn(TRIPS, STEPS, WIDTH, requires_grad=True)
    relative = torch.rand(TRIPS, STEPS, STEPS, 2)
    mask = attention_mask(torch.randint(STEPS // 2, STEPS + 1, (TRIPS,)), STEPS)

    def way(attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Way:
        def run() -> NDArray[np.float32]:
            out = attention(x, relative, mask)
            gradient, *_ = torch.autograd.grad(out.square().mean(), [x, *layer.parameters()])
            return torch.cat([out.detach().flatten(), gradient.flatten()]).numpy()

        return run

    return compare(
        f"student attention, {TRIPS} trips of {STEPS} steps: low-rank, against [B, T, T, {WIDTH // HEADS}]",
        TRIPS,
        "trips",
        plain=way(lambda *inputs: plain_attention(layer, *inputs)),
        ours=way(layer),
        runs=runs,
    )
