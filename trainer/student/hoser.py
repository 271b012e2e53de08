"""HOSER: the student. Pure torch; a trip's features in, scores of the next road and travel times out.

B trips, T steps, K candidates, d = 128 road channels. State-dict names and shapes are those of the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.data.features import Features
from trainer.student.navigator import Navigator, RoadTables, Slots
from trainer.student.road_network import EncoderSizes, RoadNetworkEncoder
from trainer.student.trajectory import TrajectoryEncoder


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


class Embeddings(NamedTuple):
    """What the student knows of the road network alone; the same for all trips of a step."""

    roads: Tensor  # [R, d]
    zones: Tensor  # [Z, d]
    candidates: RoadTables

    def leaves(self) -> Embeddings:
        """The same values cut off from the encoder, for several micro-batches to collect their gradients in."""
        roads, zones, *candidates = (value.detach().requires_grad_() for value in self._flat())
        return Embeddings(roads, zones, RoadTables(*candidates))

    def backward(self, leaves: Embeddings) -> None:
        """Takes the gradients that `leaves` collected back through the encoder: one pass for all micro-batches."""
        pairs = [(value, leaf.grad) for value, leaf in zip(self._flat(), leaves._flat(), strict=True)]
        used = [(value, gradient) for value, gradient in pairs if gradient is not None]
        if used:
            torch.autograd.backward([value for value, _ in used], [gradient for _, gradient in used])

    def _flat(self) -> tuple[Tensor, ...]:
        return (self.roads, self.zones, *self.candidates)


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
        """Road and zone embeddings and what follows from them, with gradient: the encoder is trained."""
        roads, zones = self.road_network_encoder()
        return Embeddings(roads, zones, self.navigator.tables(roads))

    def forward(self, features: Features, embeddings: Embeddings | None = None) -> tuple[Tensor, Tensor]:
        """Logits (-inf where masked) and normalised times (0 where masked) of all candidates, each [B, T, K]."""
        known = embeddings or self.embed()
        trajectory = self.trajectory_encoder(
            known.roads[features.roads],
            known.zones[self.road2zone[features.roads]],
            features.temporal_info,
            (features.distance, features.interval),
        )
        return self.navigate(trajectory, features, known)

    def navigate(
        self, trajectory_BTE: Tensor, features: Features, known: Embeddings, multiple: int = 1
    ) -> tuple[Tensor, Tensor]:
        """The second half of `forward`. Candidates are computed in numbers that `multiple` divides."""
        destination = known.zones[self.road2zone[features.destination]]
        at, slots = _slots(features, multiple)
        logits, times = self.navigator(
            trajectory_BTE.flatten(0, 1),
            destination[:, None].expand(-1, trajectory_BTE.shape[1], -1).flatten(0, 1),
            known.candidates,
            slots,
        )
        logits, times, shape = logits.float(), times.float(), features.candidates.shape
        empty = logits.new_full((features.candidates.numel(),), -torch.inf)
        return empty.index_copy(0, at, logits).view(shape), torch.zeros_like(empty).index_copy(0, at, times).view(shape)


def _slots(features: Features, multiple: int) -> tuple[Tensor, Slots]:
    """The candidates that there are, the last one repeated up to a multiple, and where in [B, T, K] each lies."""
    at = features.candidate_mask.flatten().nonzero().squeeze(-1)
    if missing := -len(at) % multiple:
        at = torch.cat([at, at[-1:].expand(missing)])
    metrics = torch.stack([features.metric_distance.flatten()[at], features.metric_angle.flatten()[at]], dim=-1)
    return at, Slots(at // features.candidates.shape[-1], features.candidates.flatten()[at], metrics)
