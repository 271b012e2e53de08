"""A student small enough for thousands of comparisons."""

from __future__ import annotations

import numpy as np
import torch

from trainer.student.hoser import HOSER, HoserConfig
from trainer.student.road_network import EncoderSizes

ZONES = 7


def student_of(rng: np.random.Generator, roads: int, *, older_time: bool, grad_checkpoint: bool = False) -> HOSER:
    """A small student, heads of 8, over a random network with many edges."""
    pairs = np.unique(rng.integers(0, roads, (6 * roads, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    zone_pairs = np.unique(rng.integers(0, ZONES, (3 * ZONES, 2)), axis=0)
    buffers = {
        "road2zone": torch.from_numpy(rng.integers(0, ZONES, roads)),
        "road_attr_len": torch.from_numpy(rng.normal(size=roads)).float(),
        "road_attr_type": torch.from_numpy(rng.integers(0, 3, roads)),
        "road_attr_lon": torch.from_numpy(rng.normal(size=roads)).float(),
        "road_attr_lat": torch.from_numpy(rng.normal(size=roads)).float(),
        "road_edge_index": torch.from_numpy(pairs.T.copy()),
        "intersection_attr": torch.from_numpy(rng.uniform(size=(len(pairs), 2))).float(),
        "zone_edge_index": torch.from_numpy(zone_pairs.T.copy()),
        "zone_edge_weight": torch.from_numpy(rng.uniform(0.1, 1, len(zone_pairs))).float(),
    }
    sizes = EncoderSizes(types=3, zones=ZONES, road_id=8, len=2, type=2, lon=2, lat=2, zone_id=16)
    torch.manual_seed(int(rng.integers(2**31)))
    config = HoserConfig(sizes, navigator_hidden=12, older_time=older_time, grad_checkpoint=grad_checkpoint)
    student = HOSER(config, buffers)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.endswith("bias"):  # some start at zero, where a wrong use would not show
                parameter.uniform_(-0.5, 0.5)
    return student
