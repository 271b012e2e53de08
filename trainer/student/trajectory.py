"""The trajectory encoder: where a trip has been, as one vector a step.

B trips, T steps, d road channels (128), E = 2 d model channels, H heads of width W. Names are the original's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

RELATIVE_FEATURES = 2
Relative = tuple[Tensor, Tensor]  # distance and time between two steps, each [B, T, T]


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
    q.(W_k r) = (q W_k).r and sum a W_v r = W_v (sum a r), and the biases are those of k and v: no [B, T, T, W] tensor
    is built. A trip's steps come first in its row and no step looks ahead, so that no step sees padding.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.relative_position_emb_k = nn.Linear(RELATIVE_FEATURES, width // heads)
        self.relative_position_emb_v = nn.Linear(RELATIVE_FEATURES, width // heads)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, and keys and values with the relative parts' biases, of steps [..., E], each [..., H, W]."""
        E, to_key, to_value = x.shape[-1], self.relative_position_emb_k, self.relative_position_emb_v
        bias = torch.cat(
            [torch.zeros_like(self.c_attn.bias[:E]), to_key.bias.repeat(self.heads), to_value.bias.repeat(self.heads)]
        )
        qkv = F.linear(x, self.c_attn.weight, self.c_attn.bias + bias)
        q, k, v = qkv.view(*x.shape[:-1], 3, self.heads, E // self.heads).unbind(-3)
        return q / math.sqrt(E // self.heads), k, v

    def forward(self, x_BTE: Tensor, relative: Relative) -> Tensor:
        B, T, E = x_BTE.shape
        q, k, v = (each.transpose(1, 2) for each in self.qkv(x_BTE))
        scores = q @ k.transpose(-1, -2)
        for weight, feature in zip((q @ self.relative_position_emb_k.weight).unbind(-1), relative, strict=True):
            scores = torch.addcmul(scores, weight[..., None], feature[:, None])
        future = torch.ones(T, T, dtype=torch.bool, device=x_BTE.device).triu(1)
        attention = scores.masked_fill(future, -torch.inf).softmax(-1)
        seen = torch.stack([(attention * feature[:, None]).sum(-1) for feature in relative], dim=-1)
        y = attention @ v + seen @ self.relative_position_emb_v.weight.t()
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

    def forward(self, x: Tensor, relative: Relative) -> Tensor:
        x = x + self.attn(self.ln_1(x), relative)
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

    def forward(self, road_BTd: Tensor, zone_BTd: Tensor, time_BT: Tensor, relative: Relative) -> Tensor:
        x = torch.cat([self.fuse(road_BTd, zone_BTd), self.temporal_encoder(time_BT)], dim=-1)
        for block in self.blocks():
            if self.grad_checkpoint and self.training:
                x = checkpoint(block, x, relative, use_reentrant=False)
            else:
                x = block(x, relative)
        return x

    def fuse(self, road: Tensor, zone: Tensor) -> Tensor:
        """A road and its zone in one, [..., d]."""
        return road + torch.sigmoid(self.road_zone_fusion_mlp(torch.cat([road, zone], dim=-1))) * zone

    def blocks(self) -> list[Block]:
        layers = self.transformer["h"]
        assert isinstance(layers, nn.ModuleList)
        return [block for block in layers if isinstance(block, Block)]
