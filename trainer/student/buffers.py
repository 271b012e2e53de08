"""The road network's features as the student's buffers, built from the data and never taken on trust."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.city import City


def _z(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """z-scores with the population standard deviation, in the type of the values."""
    spread = values.std()
    return ((values - values.mean()) / (spread if spread > 0 else 1)).astype(np.float32)


def network_buffers(city: City) -> dict[str, Tensor]:
    """`road2zone` and the road network encoder's buffers (contract: features), as the original names them."""
    road_map = city.road_map
    lng, lat = road_map.centres.astype(np.float32).T
    zone_edges, zone_weights = city.zone_graph()
    arrays = {
        "road2zone": city.zone_of_road,
        "road_attr_len": _z(np.log1p(road_map.length_m)),
        "road_attr_type": road_map.type_id,
        "road_attr_lon": _z(lng),
        "road_attr_lat": _z(lat),
        "road_edge_index": city.edge_index,
        "intersection_attr": city.edge_attr,
        "zone_edge_index": zone_edges,
        "zone_edge_weight": zone_weights,
    }
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
