"""The student as the original computes it, on the weights of ours: the reference for values, gradients, time, memory.

Every pair of steps gets its own key and value part, every candidate slot its own embedding, every touching pair of
roads its own message. R roads, E pairs of roads, B trips, T steps, K candidates, d road channels, W head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.features import Features, step_mask
from trainer.student.hoser import HOSER


def plain_forward(student: HOSER, features: Features) -> tuple[Tensor, Tensor]:
    """What `student(features)` computes: logits (-inf where masked) and normalised times, each [B, T, K]."""
    roads, zones = plain_embeddings(student)
    zone_of = student.road2zone
    x = _trajectory_input(student, features, roads, zones)
    relative = torch.stack([features.distance, features.interval], dim=-1)
    mask = causal_mask(features.steps, features.roads.shape[1])
    for block in student.trajectory_encoder.transformer["h"]:
        x = x + plain_attention(block.attn, block.ln_1(x), relative, mask)
        x = x + block.mlp(block.ln_2(x))
    logits, times = _navigate(student, features, x, roads[features.candidates], zones[zone_of[features.destination]])
    return logits.masked_fill(~features.candidate_mask, -torch.inf), times


def plain_embeddings(student: HOSER) -> tuple[Tensor, Tensor]:
    """Road embeddings [R, d] and zone embeddings [Z, d], message by message."""
    encoder = student.road_network_encoder
    parts = (
        encoder.road_id_emb.weight,
        encoder.len_emb(encoder.road_attr_len[:, None]),
        encoder.type_emb(encoder.road_attr_type),
        encoder.lon_emb(encoder.road_attr_lon[:, None]),
        encoder.lat_emb(encoder.road_attr_lat[:, None]),
    )
    first, second = encoder.road_gat.convs
    roads = F.relu(_gat(first, torch.cat(parts, dim=-1), encoder.road_edge_index, encoder.intersection_attr))
    roads = _gat(second, roads, encoder.road_edge_index, encoder.intersection_attr)
    first, second = encoder.zone_gcn.convs
    zones = F.relu(_gcn(first, encoder.zone_id_emb.weight, encoder.zone_edge_index, encoder.zone_edge_weight))
    return roads, _gcn(second, zones, encoder.zone_edge_index, encoder.zone_edge_weight)


def plain_attention(layer: nn.Module, x_BTE: Tensor, relative_BTT2: Tensor, mask_BTT: Tensor) -> Tensor:
    """Attention with a key part and a value part [B, T, T, W] for every pair of steps."""
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


def causal_mask(steps: Tensor, width: int) -> Tensor:
    """Which step may look at which, [B, T, T]: itself and earlier ones that the trip has."""
    causal = torch.ones(width, width, dtype=torch.bool, device=steps.device).tril()
    return causal & step_mask(steps, width)[:, None, :]


def _trajectory_input(student: HOSER, features: Features, roads: Tensor, zones: Tensor) -> Tensor:
    encoder = student.trajectory_encoder
    road, zone = roads[features.roads], zones[student.road2zone[features.roads]]
    gate = torch.sigmoid(encoder.road_zone_fusion_mlp(torch.cat([road, zone], dim=-1)))
    return torch.cat([road + gate * zone, encoder.temporal_encoder(features.temporal_info)], dim=-1)


def _navigate(
    student: HOSER, features: Features, x: Tensor, candidate_BTKd: Tensor, destination: Tensor
) -> tuple[Tensor, Tensor]:
    layers = student.navigator
    query = layers.q_proj(torch.cat([x, destination[:, None].expand(-1, x.shape[1], -1)], dim=-1))
    distance = layers.metric_distance_proj(features.metric_distance[..., None])
    angle = layers.metric_angle_proj(features.metric_angle[..., None])
    key = layers.k_proj(torch.cat([candidate_BTKd, distance, angle], dim=-1))
    logits = layers.v_proj(torch.tanh(query[:, :, None] + key)).squeeze(-1)
    here = layers.time_estimator_linear_1(x)[:, :, None].expand(-1, -1, candidate_BTKd.shape[2], -1)
    there = layers.time_estimator_linear_2(candidate_BTKd)
    times = layers.time_estimator_linear_3(F.gelu(torch.cat([here, there], dim=-1))).squeeze(-1)
    return logits, times


def _scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums rows by index, as PyTorch Geometric does it."""
    wide = index.view(-1, *(1,) * (values.dim() - 1)).expand_as(values)
    return values.new_zeros(size, *values.shape[1:]).scatter_add_(0, wide, values)


def _gat(layer: nn.Module, x: Tensor, edges: Tensor, attributes: Tensor) -> Tensor:
    """PyTorch Geometric's GATv2Conv: one head, edge features, self loops with the mean of incoming features."""
    count = _scatter_sum(torch.ones_like(attributes), edges[1], len(x)).clamp(min=1)
    loops = torch.arange(len(x), device=x.device).expand(2, -1)
    attributes = torch.cat([attributes, _scatter_sum(attributes, edges[1], len(x)) / count])
    source, target = torch.cat([edges, loops], dim=1)
    left, right = layer.lin_l(x), layer.lin_r(x)
    mixed = F.leaky_relu(left[source] + right[target] + layer.lin_edge(attributes), 0.2)
    score = (mixed * layer.att[0]).sum(-1)
    peak = score.new_full((len(x),), -torch.inf).scatter_reduce(0, target, score.detach(), "amax")
    weight = torch.exp(score - peak[target])
    weight = weight / _scatter_sum(weight, target, len(x))[target]
    out: Tensor = _scatter_sum(weight[:, None] * left[source], target, len(x)) + layer.bias
    return out


def _gcn(layer: nn.Module, x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    """PyTorch Geometric's GCNConv with edge weights: self loops of weight 1 where there are none, D^-1/2 A D^-1/2."""
    dense = x.new_zeros(len(x), len(x)).index_put_((edges[1], edges[0]), weight, accumulate=True)
    dense = dense + torch.diag((dense.diagonal() == 0).to(x))
    scale = dense.sum(1).rsqrt()
    out: Tensor = (scale[:, None] * dense * scale) @ layer.lin(x) + layer.bias
    return out
