"""LM-TAD's layers over the nodes of a trie instead of rows: no padding, and nothing twice. Pure torch; no I/O.

Everything but attention acts on each token alone, so it runs on the nodes, flat. For attention, nodes are gathered
into bins in which each finds its ancestors; each node's own result is taken back from one of its slots.

Letters: M nodes, D embedding, H heads, n bins of W slots, U nodes that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teacher_server.model import LMTAD, Block

# On a CPU, what one operation leaves should still be in the cache for the next: nodes of the MLP and slots of bins
# that are handled at once.
MLP_NODES = 512
BIN_SLOTS = 2048


@dataclass(frozen=True, eq=False)
class BinsOnDevice:
    """trie.Bins as tensors. `mask` is None where attention is plainly causal and the device knows that by itself."""

    nodes: Tensor  # [n * W]
    width: int  # W
    mask: Tensor | None  # [n or 1, 1, W, W] 0 where slot i attends to slot j, else -inf; in the compute type


def put_into_bins(nodes_nW: Tensor, ends_nW: Tensor, causal: bool, dtype: torch.dtype) -> BinsOnDevice:
    """Slot i of a bin attends to slot j if j <= i < ends[j]; in causal bins to all j <= i."""
    width = nodes_nW.shape[1]
    if causal and nodes_nW.is_cuda:
        return BinsOnDevice(nodes_nW.reshape(-1), width, None)
    slots = torch.arange(width, device=nodes_nW.device)
    seen = (slots[:, None] >= slots)[None]
    if not causal:
        seen = seen & (slots[:, None] < ends_nW[:, None, :])
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
    return BinsOnDevice(nodes_nW.reshape(-1), width, mask[:, None])


def embed(model: LMTAD, tokens_M: Tensor, depths_M: Tensor) -> Tensor:
    """[M, D] what the first layer sees."""
    x_MD: Tensor = model.transformer["wte"](tokens_M) + model.transformer["wpe"](depths_M)
    return x_MD


def project(block: Block, x_MD: Tensor) -> Tensor:
    """[M, 3 D] queries, keys and values."""
    qkv_M3D: Tensor = block.attn.c_attn(block.ln_1(x_MD))
    return qkv_M3D


def project_last(block: Block, x_MD: Tensor, reads_U: Tensor) -> Tensor:
    """[M, 3 D] keys and values of all nodes, queries of those that are read: all that the last layer needs."""
    D = x_MD.shape[1]
    normed_MD, weight, bias = block.ln_1(x_MD), block.attn.c_attn.weight, block.attn.c_attn.bias
    bias_q, bias_kv = (bias[:D], bias[D:]) if bias is not None else (None, None)
    qkv_M3D = x_MD.new_zeros(len(x_MD), 3 * D)
    qkv_M3D[:, D:] = F.linear(normed_MD, weight[D:], bias_kv)
    qkv_M3D[reads_U, :D] = F.linear(normed_MD[reads_U], weight[:D], bias_q)
    return qkv_M3D


def finish(block: Block, x_MD: Tensor, y_MD: Tensor) -> Tensor:
    """[M, D] the residual stream after attention's result `y_MD` and the MLP."""
    x_MD = x_MD + block.attn.c_proj(y_MD)
    return x_MD + block.mlp(block.ln_2(x_MD))


def finish_in_parts(block: Block, x_MD: Tensor, y_MD: Tensor) -> Tensor:
    """The same, in place and so that a CPU's caches hold what is between the MLP's two halves."""
    _plus(x_MD, block.attn.c_proj, y_MD)
    for x in x_MD.split(MLP_NODES):
        _plus(x, block.mlp.c_proj, F.gelu(block.mlp.c_fc(block.ln_2(x))))
    return x_MD


def _plus(x: Tensor, linear: nn.Linear, y: Tensor) -> None:
    """x += linear(y)."""
    x.addmm_(y, linear.weight.t())
    if linear.bias is not None:
        x.add_(linear.bias)


def attend(qkv_M3D: Tensor, bins: Sequence[BinsOnDevice], homes: Tensor, heads: int) -> Tensor:
    """[len(homes), D] attention's result in the slots `homes`, counted through all bins."""
    found = [part for each in bins for part in _attend_in_bins(qkv_M3D, each, heads)]
    return torch.cat(found).index_select(0, homes)


def _attend_in_bins(qkv_M3D: Tensor, bins: BinsOnDevice, heads: int) -> list[Tensor]:
    step = len(bins.nodes) if qkv_M3D.is_cuda else max(BIN_SLOTS // bins.width, 1)
    parts = bins.nodes.split(step * bins.width)
    mask = bins.mask
    masks = [mask] * len(parts) if mask is None or len(mask) == 1 else mask.split(step)
    return [
        _attention(qkv_M3D.index_select(0, nodes), m, bins.width, heads) for nodes, m in zip(parts, masks, strict=True)
    ]


def _attention(qkv: Tensor, mask: Tensor | None, width: int, heads: int) -> Tensor:
    D = qkv.shape[1] // 3
    q, k, v = qkv.view(-1, width, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    if qkv.is_cuda:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    else:  # several times as fast there as torch's own for so short sequences
        assert mask is not None
        y = ((q * (D // heads) ** -0.5) @ k.transpose(-1, -2)).add_(mask).softmax(-1) @ v
    return y.transpose(1, 2).reshape(-1, D)
