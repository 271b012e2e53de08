"""Attention over the edges of a large, sparse graph, without a tensor of all edges' channels.

R nodes, E edges (self loops included), F features of an edge, C channels. A score needs C numbers of every edge, but
only for a moment: edges are taken in pieces that fit a CPU's cache, and the backward pass computes them anew. The sums
over neighbours are bags of rows with weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.2
PIECE = {"cpu": 2048, "cuda": 1 << 20}  # edges at once: C channels of them fill half a core's cache, or a GPU


class Edges(NamedTuple):
    """Edges in order of their targets, and what turns that order round."""

    source: Tensor  # [E] int64
    target: Tensor  # [E] int64, ascending
    features: Tensor  # [F, E] float32
    start: Tensor  # [R] int64: the first edge to each node
    back_order: Tensor  # [E] int64: the same edges in order of their sources
    back_start: Tensor  # [R] int64: the first edge from each node, in that order

    @classmethod
    def of(cls, edge_index: Tensor, edge_attr: Tensor, nodes: int) -> Edges:
        """From edges [2, E'] and their features [E', F], neither with self loops."""
        index, attr = with_self_loops(edge_index, edge_attr, nodes)
        order = index[1].argsort(stable=True)
        source, target = index[:, order]
        back = source.argsort(stable=True)
        return cls(
            source, target, attr[order].t().contiguous(), _starts(target, nodes), back, _starts(source[back], nodes)
        )


def with_self_loops(edge_index: Tensor, edge_attr: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Adds i -> i for every node, with the mean of the attributes of the edges that come in (0 without any)."""
    target = edge_index[1]
    count = scatter_sum(torch.ones_like(edge_attr[:, 0]), target, nodes).clamp(min=1)
    mean = scatter_sum(edge_attr, target, nodes) / count[:, None]
    loop = torch.arange(nodes, device=edge_index.device).expand(2, nodes)
    return torch.cat([edge_index, loop], dim=1), torch.cat([edge_attr, mean])


def scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums of the rows of `values` that share an index, [size, ...]."""
    return values.new_zeros(size, *values.shape[1:]).index_add_(0, index, values)


def attend(left_RC: Tensor, right_RC: Tensor, edge_FC: Tensor, att_C: Tensor, edges: Edges) -> Tensor:
    """sum_j a_ij left_j with a_ij = softmax_j att . leaky_relu(left_j + right_i + edge' e_ij), [R, C]. Float32."""
    out: Tensor = _Attend.apply(left_RC, right_RC, edge_FC, att_C, edges)
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, edge: Tensor, att: Tensor, edges: Edges) -> Tensor:
        score = left.new_empty(len(edges.source))
        for piece in _pieces(edges):
            mixed = F.leaky_relu_(_mixed(left, right, edge, edges, piece), NEGATIVE_SLOPE)
            torch.mv(mixed, att, out=score[piece])
        weight = _segment_softmax(score, edges.target, len(left))
        ctx.save_for_backward(left, right, edge, att, weight)
        ctx.edges = edges
        return _bag(left, edges.source, edges.start, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        (grad,) = gradients
        left, right, edge, att, weight = ctx.saved_tensors
        edges: Edges = ctx.edges
        d_score = _score_gradient(left, grad.contiguous(), weight, edges)
        # The slope times d_score, summed by source, by target and by feature; `att` multiplies the sums.
        d_left, d_right = torch.zeros_like(left), torch.zeros_like(right)
        d_edge, d_att = torch.zeros_like(edge), torch.zeros_like(att)
        for piece in _pieces(edges):
            mixed = _mixed(left, right, edge, edges, piece)
            d = d_score[piece]
            slope = torch.ops.aten.leaky_relu_backward(d[:, None].expand_as(mixed), mixed, NEGATIVE_SLOPE, False)
            d_att.addmv_(F.leaky_relu_(mixed, NEGATIVE_SLOPE).t(), d)
            d_left.index_add_(0, edges.source[piece], slope)
            d_right.index_add_(0, edges.target[piece], slope)
            for feature, row in zip(edges.features, d_edge, strict=True):
                row.addmv_(slope.t(), feature[piece])
        back = edges.back_order
        message = _bag(grad, edges.target[back], edges.back_start, weight[back])
        return message.addcmul_(d_left, att), d_right.mul_(att), d_edge.mul_(att), d_att, None


def _pieces(edges: Edges) -> Iterator[slice]:
    size = PIECE.get(edges.source.device.type, PIECE["cuda"])
    for first in range(0, len(edges.source), size):
        yield slice(first, first + size)


def _mixed(left: Tensor, right: Tensor, edge: Tensor, edges: Edges, piece: slice) -> Tensor:
    """left_j + right_i + edge' e_ij of some edges."""
    sums = left.index_select(0, edges.source[piece]).add_(right.index_select(0, edges.target[piece]))
    return sums.addmm_(edges.features[:, piece].t(), edge)


def _score_gradient(left: Tensor, grad: Tensor, weight: Tensor, edges: Edges) -> Tensor:
    """The loss's gradient by the scores, through the softmax, [E]."""
    d_weight = torch.empty_like(weight)
    for piece in _pieces(edges):
        message = left.index_select(0, edges.source[piece])
        torch.sum(message.mul_(grad.index_select(0, edges.target[piece])), 1, out=d_weight[piece])
    pull = weight * d_weight
    return pull - weight * scatter_sum(pull, edges.target, len(left))[edges.target]


def _segment_softmax(score_E: Tensor, index_E: Tensor, size: int) -> Tensor:
    """Softmax within the groups of entries that share an index, [E]."""
    peak = score_E.new_full((size,), -torch.inf).scatter_reduce(0, index_E, score_E, "amax")
    weight = torch.exp(score_E - peak[index_E])
    return weight / scatter_sum(weight, index_E, size)[index_E]


def _bag(rows: Tensor, index: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows, one for each run of `index`."""
    return F.embedding_bag(index, rows, start, mode="sum", per_sample_weights=weight)


def _starts(ascending: Tensor, nodes: int) -> Tensor:
    counts = torch.bincount(ascending, minlength=nodes)
    return counts.cumsum(0) - counts
