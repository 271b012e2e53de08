"""The graph of road segments that touch, which the road encoder's attention runs over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data.roadmap import Floats, Ints, RoadMap


def road_edges(road_map: RoadMap) -> tuple[Ints, NDArray[np.float32]]:
    """Pairs of roads that share a start or end coordinate.

    Returns edges [2, E], both directions, no self loop, sorted by (i, j), and attributes [E, 2]:
    |bearing difference| wrapped / pi, and 1 where j can follow i.
    """
    i, j = _touching(road_map)
    bearing = bearings(road_map)
    turn = np.abs(bearing[i] - bearing[j])
    turn = np.where(turn > np.pi, 2 * np.pi - turn, turn) / np.pi
    keys = road_map.relation_keys()
    pairs = i * road_map.roads + j
    follows = keys[np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)] == pairs
    return np.stack([i, j]), np.stack([turn, follows], axis=1).astype(np.float32)


def bearings(road_map: RoadMap) -> Floats:
    """Direction from each road's first point to its last, atan2(dlat, cos(lat of the first) * dlng), [R]."""
    first, last = road_map.first_points, road_map.last_points
    delta = last - first
    angle: Floats = np.arctan2(delta[:, 1], np.cos(np.radians(first[:, 1])) * delta[:, 0])
    return angle


def _touching(road_map: RoadMap) -> tuple[Ints, Ints]:
    """All ordered pairs (i, j), i != j, of roads with a common end, sorted. Linear in roads and pairs."""
    ends = np.concatenate([road_map.first_points, road_map.last_points])
    _, node = np.unique(ends, axis=0, return_inverse=True)
    road = np.tile(np.arange(road_map.roads), 2)
    order = np.argsort(node, kind="stable")
    node, road = node[order], road[order]
    size = np.bincount(node)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    # Entry e of a node of s entries meets each of that node's s entries.
    repeats = size[node]
    left = np.repeat(road, repeats)
    within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    right = road[np.repeat(start[node], repeats) + within]
    keys = np.unique((left * road_map.roads + right)[left != right])
    return keys // road_map.roads, keys % road_map.roads
