"""LM-TAD: a GPT-like language model of trips over grid cells. Pure torch; no I/O.

Dimensions: N rows, L tokens of a row, D embedding, H heads, V vocabulary, S block size.
Parameter names and formulas are those of the original, so that its checkpoints load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of an LM-TAD. `n_embd` must be a multiple of `n_head`."""

    block_size: int  # S: longest sequence, SOT included
    vocab_size: int  # V: cells and PAD, EOT, SOT
    n_layer: int
    n_head: int
    n_embd: int  # D
    dropout: float = 0.0
    bias: bool = False

    def __post_init__(self) -> None:
        for name in ("block_size", "vocab_size", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")


class LayerNorm(nn.Module):
    """Layer norm with an optional bias, eps 1e-5."""

    def __init__(self, size: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what lies before it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.n_head = config.n_head
        self.dropout = config.dropout

    def forward(self, x_NLD: Tensor) -> Tensor:
        N, L, D = x_NLD.shape
        qkv = self.c_attn(x_NLD).view(N, L, 3, self.n_head, D // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y = self.c_proj(y.transpose(1, 2).reshape(N, L, D))
        return F.dropout(y, self.dropout, self.training)


class MLP(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.c_proj(F.gelu(self.c_fc(x))), self.dropout, self.training)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class LMTAD(nn.Module):
    """The language model. `forward` gives hidden states; `logits` turns them into scores over the vocabulary.

    Attention is causal and positions are counted from the left, so padding on the right changes nothing to
    the left of it: no padding mask is needed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "wpe": nn.Embedding(config.block_size, config.n_embd),
                "h": nn.ModuleList(Block(config) for _ in range(config.n_layer)),
                "ln_f": LayerNorm(config.n_embd, config.bias),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]  # tied

    def initialise(self, generator: torch.Generator) -> None:
        """GPT-2's initialisation: normal(0, 0.02), residual projections scaled by 1/sqrt(2 layers)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            residual = name.endswith("c_proj.weight")
            std = 0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02
            nn.init.normal_(parameter, 0.0, std, generator=generator)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Hidden states [N, L, D] after the final norm. Raises ValueError when L exceeds the block size."""
        L = tokens_NL.shape[1]
        if self.config.block_size < L:
            raise ValueError(f"a sequence of {L} tokens exceeds the block size {self.config.block_size}")
        positions = torch.arange(L, device=tokens_NL.device)
        x = self.transformer["wte"](tokens_NL) + self.transformer["wpe"](positions)
        x = F.dropout(x, self.config.dropout, self.training)
        layers = self.transformer["h"]
        assert isinstance(layers, nn.ModuleList)
        for block in layers:
            x = block(x)
        hidden: Tensor = self.transformer["ln_f"](x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the whole vocabulary, [..., V]."""
        scores: Tensor = self.lm_head(hidden)
        return scores
