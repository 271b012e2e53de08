"""HOSER: the student. Pure torch; a trip's features in, scores of the next road and travel times out.

B trips, T steps, K candidates, d = 128 road channels. State-dict names and shapes are those of the original.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data.features import Features
from trainer.student.navigator import Navigator
from trainer.student.road_network import EncoderSizes, RoadNetworkEncoder
from trainer.student.trajectory import TrajectoryEncoder, attention_mask


@dataclass(frozen=True)
class HoserConfig:
    """Sizes of the student."""

    encoder: EncoderSizes
    heads: int = 2
    layers: int = 2
    dropout: float = 0.0
    navigator_hidden: int = 128
    older_time: bool = False  # the temporal encoder of older checkpoints
    grad_checkpoint: bool = False


@dataclass(frozen=True)
class Embeddings:
    """What the road network encoder says; the same for all trips of a step."""

    roads: Tensor  # [R, d]
    zones: Tensor  # [Z, d]


class HOSER(nn.Module):
    """Scores candidates and times. Buffers hold the road network's features, so a checkpoint is self-contained."""

    road2zone: Tensor  # [R] int64

    def __init__(self, config: HoserConfig, buffers: dict[str, Tensor]) -> None:
        """`buffers`: `road2zone` [R] and what `network_buffers` gives for the encoder."""
        super().__init__()
        self.config = config
        encoder_buffers = dict(buffers)
        self.register_buffer("road2zone", encoder_buffers.pop("road2zone"))
        self.road_network_encoder = RoadNetworkEncoder(encoder_buffers, config.encoder)
        d = config.encoder.road
        self.trajectory_encoder = TrajectoryEncoder(
            d,
            config.heads,
            config.layers,
            config.dropout,
            older_time=config.older_time,
            grad_checkpoint=config.grad_checkpoint,
        )
        self.navigator = Navigator(d, config.navigator_hidden)

    def embed(self) -> Embeddings:
        """Road and zone embeddings, with gradient: the encoder is trained."""
        return Embeddings(*self.road_network_encoder())

    def forward(self, features: Features, embeddings: Embeddings | None = None) -> tuple[Tensor, Tensor]:
        """Logits (-inf where masked) and normalised times of all candidates, each [B, T, K]."""
        embedded = embeddings or self.embed()
        trajectory = self.trajectory_encoder(
            embedded.roads[features.roads],
            embedded.zones[self.road2zone[features.roads]],
            features.temporal_info,
            torch.stack([features.distance, features.interval], dim=-1),
            attention_mask(features.steps, features.roads.shape[1]),
        )
        logits, times = self.navigator(
            trajectory,
            embedded.zones[self.road2zone[features.destination]],
            embedded.roads[features.candidates],
            features.metric_distance,
            features.metric_angle,
        )
        return logits.masked_fill(~features.candidate_mask, -torch.inf), times
