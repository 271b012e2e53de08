"""Paths that grow a step at a time: what the trajectory encoder keeps of every step, shared by paths that begin alike.

Attention is causal, so a step's keys and values stay what they are however the path goes on; a new step needs only its
own row. C places for steps, N new steps, P pairs of a new step and one that it looks back to (itself included), H heads
of width W, E = H W channels.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.data.features import Features, relative_to
from trainer.student.trajectory import Block, TrajectoryEncoder

PIECE = {"cpu": 512, "cuda": 1 << 16}  # pairs whose keys are copied side by side at once: as many as a cache holds


class Pairs(NamedTuple):
    """Which steps each new step looks back to, side by side."""

    new: Tensor  # [P] int64 in 0..N - 1, ascending
    place: Tensor  # [P] int64
    start: Tensor  # [N + 1] int64: where the pairs of each new step begin, and P
    relative: Tensor  # [P, 2] float32: distance and interval


class Attend(Protocol):
    """sum_p a_p (value_p + W_v relative_p), a = softmax of query . key_p + query . W_k relative_p, [N, H, W].

    Queries [N, H, W] are scaled; keys and values [C, H, W]; W_k and W_v are [W, 2].
    """

    def __call__(
        self, queries: Tensor, keys: Tensor, values: Tensor, pairs: Pairs, to_key: Tensor, to_value: Tensor, /
    ) -> Tensor: ...


def attend(queries: Tensor, keys: Tensor, values: Tensor, pairs: Pairs, to_key: Tensor, to_value: Tensor, /) -> Tensor:
    """Attend on any device. Sums run in the order of the pairs, so that no other path changes a result."""
    piece = PIECE.get(queries.device.type, PIECE["cuda"])
    pieces = zip(pairs.place.split(piece), pairs.new.split(piece), strict=True)
    scores = torch.cat([(keys.index_select(0, place) * queries.index_select(0, new)).sum(-1) for place, new in pieces])
    for weight, feature in zip((queries @ to_key).unbind(-1), pairs.relative.unbind(-1), strict=True):
        scores = torch.addcmul(scores, weight[pairs.new], feature[:, None])
    peak = torch.segment_reduce(scores, "max", offsets=pairs.start, axis=0)
    weights = (scores - peak[pairs.new]).double().exp().float()  # in float32 a result depends on where it stands
    weights = weights / torch.segment_reduce(weights, "sum", offsets=pairs.start, axis=0)[pairs.new]
    seen = torch.segment_reduce(weights[..., None] * pairs.relative[:, None], "sum", offsets=pairs.start, axis=0)
    heads, rows = values.shape[1], values.flatten(0, 1)  # a row for each head of each place
    y = [
        F.embedding_bag(heads * pairs.place + h, rows, pairs.start[:-1], mode="sum", per_sample_weights=weight)
        for h, weight in enumerate(weights.t().contiguous())
    ]
    return torch.stack(y, dim=1) + seen @ to_value.t()


class Prefixes:
    """Room for C steps. A step lies at the place that the caller gives it, where no other may be in use."""

    def __init__(
        self, encoder: TrajectoryEncoder, road_Rd: Tensor, zone_Rd: Tensor, places: int, attend: Attend = attend
    ) -> None:
        """`road_Rd`, `zone_Rd`: embeddings of every road and of its zone."""
        self._encoder, self._attend = encoder, attend
        self._fused = encoder.fuse(road_Rd, zone_Rd)
        blocks = encoder.blocks()
        attention = blocks[0].attn
        like = attention.c_attn.weight
        shape = (places, attention.heads, like.shape[1] // attention.heads)
        self._keys = [like.new_empty(shape) for _ in blocks]
        self._values = [like.new_empty(shape) for _ in blocks]
        self._centre = like.new_empty((places, 3), dtype=torch.float64)
        self._temporal_info = like.new_empty(places)
        self._length = like.new_zeros(places, dtype=torch.int64)  # steps up to this one
        self._path = like.new_zeros((places, 32), dtype=torch.int32)  # their places, first to last

    def extend(self, places: Tensor, parents: Tensor, features: Features) -> Tensor:
        """Takes new steps in, and returns their hidden states [N, E].

        `parents` [N]: the place of the step before, -1 for a first step. `features`: of the new steps alone (T = 1).
        """
        info = features.temporal_info[:, 0]
        self._centre.index_copy_(0, places, features.centre[:, 0])
        self._temporal_info.index_copy_(0, places, info)
        pairs = self._pairs(places, parents)
        x = torch.cat([self._fused.index_select(0, features.roads[:, 0]), self._encoder.temporal_encoder(info)], dim=-1)
        for block, keys, values in zip(self._encoder.blocks(), self._keys, self._values, strict=True):
            x = self._through(block, x, keys, values, places, pairs)
        return x

    def _through(self, block: Block, x: Tensor, keys: Tensor, values: Tensor, places: Tensor, pairs: Pairs) -> Tensor:
        """One block (see Block.forward) for new steps only."""
        attention = block.attn
        queries, own_keys, own_values = attention.qkv(block.ln_1(x))
        keys.index_copy_(0, places, own_keys)
        values.index_copy_(0, places, own_values)
        to_key, to_value = attention.relative_position_emb_k.weight, attention.relative_position_emb_v.weight
        y = self._attend(queries, keys, values, pairs, to_key, to_value)
        x = x + attention.c_proj(y.flatten(1))
        return x + block.mlp(block.ln_2(x))

    def _pairs(self, places: Tensor, parents: Tensor) -> Pairs:
        before = torch.where(parents < 0, 0, self._length[parents])
        longest = int(before.max()) + 1
        if longest > self._path.shape[1]:
            self._path = F.pad(self._path, (0, self._path.shape[1]))  # lengths grow by one
        path = self._path[parents]
        path.scatter_(1, before[:, None], places[:, None].int())
        self._path.index_copy_(0, places, path)
        self._length.index_copy_(0, places, before + 1)
        mask = torch.arange(longest, device=places.device) <= before[:, None]
        new, place = mask.nonzero()[:, 0], path[:, :longest][mask].long()
        return Pairs(new, place, F.pad((before + 1).cumsum(0), (1, 0)), self._relative(places, new, place))

    def _relative(self, places: Tensor, new: Tensor, place: Tensor) -> Tensor:
        centre, info = self._centre, self._temporal_info
        own = centre.index_select(0, places).index_select(0, new), info.index_select(0, places).index_select(0, new)
        return torch.stack(relative_to(*own, centre.index_select(0, place), info.index_select(0, place)), dim=-1)
