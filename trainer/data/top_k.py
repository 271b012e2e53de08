"""The candidate filter: of each step keep the k candidates that are nearest to the destination."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainer.data.features import IGNORED, Features, Labels


def keep_nearest(features: Features, labels: Labels, k: int) -> tuple[Features, Labels, Tensor | None]:
    """The same steps with at most k candidates, in their old order; a label that is dropped becomes IGNORED.

    Masked slots count as farthest and ties keep the earlier candidate. The third value tells which candidates stay,
    [B, T, k]; None where k is the out-degree or more, which changes nothing.
    """
    if k >= features.candidates.shape[-1]:
        return features, labels, None
    distance = features.metric_distance.masked_fill(~features.candidate_mask, torch.inf)
    kept = distance.argsort(dim=-1, stable=True)[..., :k].sort(dim=-1).values
    place = kept == labels.choice[..., None]
    choice = torch.where(place.any(-1), place.int().argmax(-1), IGNORED)
    filtered = replace(
        features,
        candidates=features.candidates.gather(-1, kept),
        candidate_mask=features.candidate_mask.gather(-1, kept),
        metric_distance=features.metric_distance.gather(-1, kept),
        metric_angle=features.metric_angle.gather(-1, kept),
    )
    return filtered, replace(labels, choice=choice), kept
