"""Plain forms that the product's faster ones are measured against. B trips, T steps, E channels, H heads of width W."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.student.trajectory import RelativeAttention


def plain_attention(layer: RelativeAttention, x_BTE: Tensor, relative_BTT2: Tensor, mask_BTT: Tensor) -> Tensor:
    """What `layer` computes, with a key part and a value part [B, T, T, W] for every pair of steps."""
    B, T, E = x_BTE.shape
    q, k, v = layer.c_attn(x_BTE).view(B, T, 3, layer.heads, E // layer.heads).permute(2, 0, 3, 1, 4)
    relative_k = layer.relative_position_emb_k(relative_BTT2)
    relative_v = layer.relative_position_emb_v(relative_BTT2)
    scores = q @ k.transpose(-1, -2) + torch.einsum("bhtw,btsw->bhts", q, relative_k)
    scores = (scores / math.sqrt(E // layer.heads)).masked_fill(~mask_BTT[:, None], -torch.inf)
    attention = scores.softmax(-1)
    y = attention @ v + torch.einsum("bhts,btsw->bhtw", attention, relative_v)
    projected: Tensor = layer.c_proj(y.transpose(1, 2).reshape(B, T, E))
    return projected
