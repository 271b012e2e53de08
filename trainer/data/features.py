"""The one feature builder: road ids and times in, the student's inputs out, on any device.

Training, validation and generation all use `build_features`. R roads, B trips, T steps, K candidates of a step
(the network's largest out-degree). Step t stands at road t and predicts road t + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from trainer.data.roadmap import RoadMap

EARTH_RADIUS_M = 6_371_008.8
MINUTES_PER_DAY = 1440
IGNORED = -100  # the label of a step that has no label


@dataclass(frozen=True)
class Network:
    """What the features need of the road map, as tensors of one device."""

    centre_xyz: Tensor  # [R, 3] float64 metres from the earth's centre
    last_point: Tensor  # [R, 2] float64 lng, lat in degrees
    successors: Tensor  # [R, K] int64, padded with -1
    out_degree: Tensor  # [R] int64

    @classmethod
    def of(cls, road_map: RoadMap) -> Network:
        table, counts = road_map.successor_table()
        lng, lat = np.radians(road_map.centres).T
        xyz = np.stack([np.cos(lat) * np.cos(lng), np.cos(lat) * np.sin(lng), np.sin(lat)], axis=1)
        return cls(
            torch.from_numpy(EARTH_RADIUS_M * xyz),
            torch.from_numpy(np.ascontiguousarray(road_map.last_points)),
            torch.from_numpy(table),
            torch.from_numpy(counts),
        )

    def to(self, device: torch.device) -> Network:
        return Network(*(getattr(self, f.name).to(device) for f in fields(self)))

    def distance_m(self, a: Tensor, b: Tensor) -> Tensor:
        """Great-circle metres between the centres of roads a and b (broadcast), float64.

        2 R asin(chord / 2 R): the haversine formula, from positions in space.
        """
        chord = torch.linalg.vector_norm(self.centre_xyz[a] - self.centre_xyz[b], dim=-1)
        return 2 * EARTH_RADIUS_M * torch.asin((chord / (2 * EARTH_RADIUS_M)).clamp(max=1.0))


@dataclass(frozen=True)
class Features:
    """The student's inputs. Slots beyond a trip's steps or a road's candidates hold no meaning."""

    roads: Tensor  # [B, T] int64: where each step stands
    temporal_info: Tensor  # [B, T] float32: share of the day, negative at weekends
    centre: Tensor  # [B, T, 3] float64: the roads' centres in metres from the earth's centre
    steps: Tensor  # [B] int64
    destination: Tensor  # [B] int64
    candidates: Tensor  # [B, T, K] int64, 0 where masked
    candidate_mask: Tensor  # [B, T, K] bool
    metric_distance: Tensor  # [B, T, K] float32
    metric_angle: Tensor  # [B, T, K] float32

    @property
    def distance(self) -> Tensor:
        """Metres between two steps' centres, 1000 at most, / 1000, [B, T, T] float32.

        Straight through the earth: up to 1 km that is the great circle's length to a billionth.
        """
        return _near(torch.cdist(self.centre, self.centre, compute_mode="donot_use_mm_for_euclid_dist"))

    @property
    def interval(self) -> Tensor:
        """Minutes of the day between two steps, 5 at most, / 5, [B, T, T] float32."""
        return _soon(self.temporal_info[:, :, None], self.temporal_info[:, None, :])

    def part(self, trips: Tensor, width: int) -> Features:
        """Some of the trips and their first `width` steps, which must be all that they have."""
        return Features(
            **{
                field.name: getattr(self, field.name)[trips]
                if field.name in ("steps", "destination")
                else getattr(self, field.name)[trips, :width]
                for field in fields(self)
            }
        )


@dataclass(frozen=True)
class Labels:
    """What happened at each step."""

    choice: Tensor  # [B, T] int64: index of the road taken among the candidates, or IGNORED
    seconds: Tensor  # [B, T] int64: time spent until the next road's entry

    def part(self, trips: Tensor, width: int) -> Labels:
        """Those of some of the trips and their first `width` steps."""
        return Labels(self.choice[trips, :width], self.seconds[trips, :width])


def step_mask(steps: Tensor, width: int) -> Tensor:
    """True at the steps that a trip has, [B, width]."""
    return torch.arange(width, device=steps.device) < steps[:, None]


def build_features(
    network: Network,
    roads_BT: Tensor,
    times_BT: Tensor,
    steps: Tensor,
    destination: Tensor,
    weekend: Tensor,
    *,
    angle: str = "original",
) -> Features:
    """Inputs for trips that stand at `roads_BT` at `times_BT` on their way to `destination`."""
    temporal = _temporal_info(times_BT, weekend)
    candidates, mask = _candidates(network, roads_BT, step_mask(steps, roads_BT.shape[1]))
    return Features(
        roads=roads_BT,
        temporal_info=temporal,
        centre=network.centre_xyz[roads_BT],
        steps=steps,
        destination=destination,
        candidates=candidates,
        candidate_mask=mask,
        metric_distance=_metric_distance(network, candidates, mask, destination),
        metric_angle=_metric_angle(network, roads_BT, candidates, destination, angle),
    )


def build_labels(features: Features, next_road_BT: Tensor, seconds_BT: Tensor) -> Labels:
    """Where the road taken stands among the candidates; steps without candidates are IGNORED."""
    hit = (features.candidates == next_road_BT[..., None]) & features.candidate_mask
    choice = torch.where(hit.any(-1), hit.int().argmax(-1), IGNORED)
    return Labels(choice, seconds_BT)


def relative_to(
    centre: Tensor, temporal_info: Tensor, other_centre: Tensor, other_info: Tensor
) -> tuple[Tensor, Tensor]:
    """`distance` and `interval` of pairs of steps one by one, from centres [P, 3] and temporal infos [P]."""
    return _near(torch.linalg.vector_norm(centre - other_centre, dim=-1)), _soon(temporal_info, other_info)


def _near(chord_m: Tensor) -> Tensor:
    return (chord_m.clamp_(max=1000) / 1000).float()


def _soon(temporal_info: Tensor, other: Tensor) -> Tensor:
    minutes, others = (info.abs() * MINUTES_PER_DAY for info in (temporal_info, other))
    return (minutes - others).abs_().clamp_(max=5).div_(5)


def _temporal_info(times: Tensor, weekend: Tensor) -> Tensor:
    day_share = ((times % 86_400).double() / 60 / MINUTES_PER_DAY).float()
    return torch.where(weekend[:, None], -day_share, day_share)


def _candidates(network: Network, roads: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    candidates = network.successors[roads]
    mask = (candidates >= 0) & valid[..., None]
    return candidates.clamp(min=0), mask


def _metric_distance(network: Network, candidates: Tensor, mask: Tensor, destination: Tensor) -> Tensor:
    """log1p((d - min d) / 100), d = metres from the candidate to the destination."""
    metres = network.distance_m(candidates, destination[:, None, None])
    nearest = metres.masked_fill(~mask, math.inf).amin(-1, keepdim=True)
    return torch.log1p((metres - nearest).clamp(min=0) / 100).float()


def _metric_angle(network: Network, roads: Tensor, candidates: Tensor, destination: Tensor, rule: str) -> Tensor:
    """Angle between the ways to the candidate's end and to the destination's end, seen from the road's end, / pi."""
    here = network.last_point[roads]
    to_candidate = _direction(here[:, :, None], network.last_point[candidates], rule)
    to_destination = _direction(here, network.last_point[destination][:, None], rule)
    turn = (to_candidate - to_destination[..., None]).abs()
    turn = torch.where(turn > math.pi, 2 * math.pi - turn, turn)
    return (turn / math.pi).float()


def _direction(start: Tensor, end: Tensor, rule: str) -> Tensor:
    """Angle of the way from start to end. `original` repeats the swapped axes that its checkpoints depend on."""
    d_lng, d_lat = (end - start).unbind(-1)
    lng, lat = start.unbind(-1)
    if rule == "original":
        return torch.atan2(d_lng, torch.cos(torch.deg2rad(lng)) * d_lat)
    return torch.atan2(d_lat, torch.cos(torch.deg2rad(lat)) * d_lng)
