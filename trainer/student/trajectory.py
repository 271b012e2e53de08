"""The trajectory encoder: where a trip has been, as one vector a step.

B trips, T steps, d road channels (128), E = 2 d model channels, H heads of width W. Names are the original's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

RELATIVE_FEATURES = 2  # distance and time between two steps


class FourierTime(nn.Module):
    """cat(cos(t f), sin(t f)) / sqrt(2 d) with learned frequencies f [d / 2]."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.randn(d // 2))

    def forward(self, t_BT: Tensor) -> Tensor:
        angle = t_BT[..., None] * self.freqs
        return torch.cat([angle.cos(), angle.sin()], dim=-1) / math.sqrt(4 * len(self.freqs))


class LinearTime(nn.Module):
    """The older encoder: cos(Linear(1, d)(t))."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.time_emb = nn.Linear(1, d)

    def forward(self, t_BT: Tensor) -> Tensor:
        return torch.cos(self.time_emb(t_BT[..., None]))


class RelativeAttention(nn.Module):
    """Causal attention whose keys and values also carry the relative features of a pair of steps.

    scores = (q.k + q.(W_k r + b_k)) / sqrt(W), output = sum a (v + W_v r + b_v). The relative parts are linear, so
    q.(W_k r + b_k) = (q W_k).r + q.b_k and sum a (W_v r + b_v) = W_v (sum a r) + b_v: no [B, T, T, W] tensor is built.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.relative_position_emb_k = nn.Linear(RELATIVE_FEATURES, width // heads)
        self.relative_position_emb_v = nn.Linear(RELATIVE_FEATURES, width // heads)

    def forward(self, x_BTE: Tensor, relative_BTT2: Tensor, mask_BTT: Tensor) -> Tensor:
        B, T, E = x_BTE.shape
        q, k, v = self.c_attn(x_BTE).view(B, T, 3, self.heads, E // self.heads).permute(2, 0, 3, 1, 4)
        to_key, to_value = self.relative_position_emb_k, self.relative_position_emb_v
        scores = q @ k.transpose(-1, -2) + (q @ to_key.bias)[..., None]
        scores = scores + torch.einsum("bhtr,btsr->bhts", q @ to_key.weight, relative_BTT2)
        scores = scores / math.sqrt(E // self.heads)
        attention = scores.masked_fill(~mask_BTT[:, None], -torch.inf).softmax(-1)
        seen = torch.einsum("bhts,btsr->bhtr", attention, relative_BTT2)
        y = attention @ v + to_value(seen)
        y = self.c_proj(y.transpose(1, 2).reshape(B, T, E))
        return F.dropout(y, self.dropout, self.training)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = RelativeAttention(width, heads, dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = dropout

    def forward(self, x: Tensor, relative: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), relative, mask)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)


class TrajectoryEncoder(nn.Module):
    """Road and zone embeddings and times of a trip's steps to hidden states [B, T, E]."""

    def __init__(
        self, d: int, heads: int, layers: int, dropout: float, *, older_time: bool, grad_checkpoint: bool
    ) -> None:
        super().__init__()
        self.grad_checkpoint = grad_checkpoint
        self.road_zone_fusion_mlp = nn.Sequential(nn.Linear(2 * d, d // 2), nn.GELU(), nn.Linear(d // 2, 1))
        self.temporal_encoder = LinearTime(d) if older_time else FourierTime(d)
        self.transformer = nn.ModuleDict({"h": nn.ModuleList(Block(2 * d, heads, dropout) for _ in range(layers))})

    def forward(
        self, road_BTd: Tensor, zone_BTd: Tensor, time_BT: Tensor, relative_BTT2: Tensor, mask_BTT: Tensor
    ) -> Tensor:
        gate = torch.sigmoid(self.road_zone_fusion_mlp(torch.cat([road_BTd, zone_BTd], dim=-1)))
        x = torch.cat([road_BTd + gate * zone_BTd, self.temporal_encoder(time_BT)], dim=-1)
        for block in self._blocks():
            if self.grad_checkpoint and self.training:
                x = checkpoint(block, x, relative_BTT2, mask_BTT, use_reentrant=False)
            else:
                x = block(x, relative_BTT2, mask_BTT)
        return x

    def _blocks(self) -> list[Block]:
        layers = self.transformer["h"]
        assert isinstance(layers, nn.ModuleList)
        return [block for block in layers if isinstance(block, Block)]


def attention_mask(steps: Tensor, width: int) -> Tensor:
    """Which step may look at which, [B, T, T]: itself and earlier ones that the trip has.

    Steps beyond a trip's end still look at real ones, so that no row is empty and nothing becomes NaN.
    """
    position = torch.arange(width, device=steps.device)
    causal = position <= position[:, None]
    mask: Tensor = causal & (position < steps[:, None, None])
    return mask
