"""Road and zone embeddings: a graph attention network over touching roads, a graph convolution over zones.

R roads, Z zones, E edges, C channels (128). Parameter names are those of the original. The layers compute what
PyTorch Geometric's GATv2Conv (one head, edge features, self loops with the mean of the incoming edge features) and
GCNConv (edge weights) compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.student.graph_attention import Edges, attend, scatter_sum


class GATv2Conv(nn.Module):
    """Attention from a node to its neighbours: a_ij = softmax_j att . leaky_relu(l(x_j) + r(x_i) + edge(e_ij))."""

    def __init__(self, channels: int, edge_dim: int) -> None:
        super().__init__()
        self.att = nn.Parameter(torch.empty(1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.lin_l = nn.Linear(channels, channels)
        self.lin_r = nn.Linear(channels, channels)
        self.lin_edge = nn.Linear(edge_dim, channels, bias=False)
        for weight in (self.att, self.lin_l.weight, self.lin_r.weight, self.lin_edge.weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.lin_l.bias)
        nn.init.zeros_(self.lin_r.bias)

    def forward(self, x_RC: Tensor, edges: Edges) -> Tensor:
        per_edge = self.lin_edge.weight.t().contiguous()
        return attend(self.lin_l(x_RC), self.lin_r(x_RC), per_edge, self.att.flatten(), edges) + self.bias


class GCNConv(nn.Module):
    """Linear map, then a sum over neighbours with fixed weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.lin = nn.Linear(channels, channels, bias=False)
        nn.init.xavier_uniform_(self.lin.weight)

    def forward(self, x_ZC: Tensor, edges: tuple[Tensor, Tensor]) -> Tensor:
        (source, target), weight = edges
        return scatter_sum(weight[:, None] * self.lin(x_ZC)[source], target, len(x_ZC)) + self.bias


class ConvStack(nn.Module):
    """Layers under the name `convs`, with a ReLU after the first only."""

    def __init__(self, *convs: nn.Module) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor, edges: Any) -> Tensor:
        first, second = self.convs
        out: Tensor = second(F.relu(first(x, edges)), edges)
        return out


def gcn_normalised(edge_index: Tensor, weight: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """GCN's edges: self loops of weight 1 where there are none, then D^-1/2 A D^-1/2 with D of incoming weights."""
    source, target = edge_index
    other = source != target
    loop_weight = weight.new_ones(nodes).index_copy(0, source[~other], weight[~other])
    loop = torch.arange(nodes, device=edge_index.device)
    source, target = torch.cat([source[other], loop]), torch.cat([target[other], loop])
    weight = torch.cat([weight[other], loop_weight])
    scale = scatter_sum(weight, target, nodes).rsqrt()  # a self loop makes every sum positive
    return torch.stack([source, target]), scale[source] * weight * scale[target]


@dataclass(frozen=True)
class EncoderSizes:
    """Rows and widths of the encoder's tables."""

    types: int  # highway classes
    zones: int  # Z
    road_id: int = 64
    len: int = 16
    type: int = 16
    lon: int = 16
    lat: int = 16
    zone_id: int = 128

    @property
    def road(self) -> int:
        """Width of a road's embedding: its parts side by side."""
        return self.road_id + self.len + self.type + self.lon + self.lat


class RoadNetworkEncoder(nn.Module):
    """Embeds every road [R, 128] and every zone [Z, 128] from the features that lie in its buffers."""

    road_attr_len: Tensor  # [R] float32
    road_attr_type: Tensor  # [R] int64
    road_attr_lon: Tensor  # [R] float32
    road_attr_lat: Tensor  # [R] float32
    road_edge_index: Tensor  # [2, E] int64
    intersection_attr: Tensor  # [E, 2] float32
    zone_edge_index: Tensor  # [2, E_z] int64
    zone_edge_weight: Tensor  # [E_z] float32

    def __init__(self, buffers: dict[str, Tensor], sizes: EncoderSizes) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self.road_id_emb = nn.Embedding(len(buffers["road_attr_len"]), sizes.road_id)
        self.len_emb = nn.Linear(1, sizes.len)
        self.type_emb = nn.Embedding(sizes.types, sizes.type)
        self.lon_emb = nn.Linear(1, sizes.lon)
        self.lat_emb = nn.Linear(1, sizes.lat)
        self.zone_id_emb = nn.Embedding(sizes.zones, sizes.zone_id)
        self.road_gat = ConvStack(GATv2Conv(sizes.road, 2), GATv2Conv(sizes.road, 2))
        self.zone_gcn = ConvStack(GCNConv(sizes.zone_id), GCNConv(sizes.zone_id))

        self._graphs: tuple[list[tuple[Tensor, int]], Edges, tuple[Tensor, Tensor]] | None = None

    def forward(self) -> tuple[Tensor, Tensor]:
        """In float32 also under autocast: sums over many neighbours, once a step."""
        road_edges, zone_edges = self._derived()
        with torch.autocast(self.road_attr_len.device.type, enabled=False):
            parts = (
                self.road_id_emb.weight,
                self.len_emb(self.road_attr_len[:, None]),
                self.type_emb(self.road_attr_type),
                self.lon_emb(self.road_attr_lon[:, None]),
                self.lat_emb(self.road_attr_lat[:, None]),
            )
            roads = self.road_gat(torch.cat(parts, dim=-1), road_edges)
            return roads, self.zone_gcn(self.zone_id_emb.weight, zone_edges)

    def _derived(self) -> tuple[Edges, tuple[Tensor, Tensor]]:
        """Both graphs as the layers want them; made again when a buffer was loaded, moved or changed."""
        buffers = (self.road_edge_index, self.intersection_attr, self.zone_edge_index, self.zone_edge_weight)
        made_of = [(buffer, buffer._version) for buffer in buffers]
        if self._graphs is None or not _same(self._graphs[0], made_of):
            roads = Edges.of(self.road_edge_index, self.intersection_attr, self.road_id_emb.num_embeddings)
            zones = gcn_normalised(self.zone_edge_index, self.zone_edge_weight, self.zone_id_emb.num_embeddings)
            self._graphs = made_of, roads, zones
        return self._graphs[1:]


def _same(before: list[tuple[Tensor, int]], now: list[tuple[Tensor, int]]) -> bool:
    """Whether these are the same tensors with the same content."""
    return all(a is b and v == w for (a, v), (b, w) in zip(before, now, strict=True))
