"""The graph of touching roads, against the quadratic definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import Polyline, random_map, road_map_of
from trainer.data.road_graph import bearings, road_edges


@settings(deadline=None, max_examples=60, database=None)
@given(st.integers(0, 2**32), st.integers(1, 25), st.integers(1, 60))
def test_edges_are_all_pairs_that_share_an_end(seed: int, roads: int, relations: int) -> None:
    road_map, lines, pairs = random_map(np.random.default_rng(seed), roads, relations)
    expected = [
        (i, j)
        for i in range(roads)
        for j in range(roads)
        if i != j and {lines[i][0], lines[i][-1]} & {*_ends(lines[j])}
    ]
    index, attributes = road_edges(road_map)
    assert list(map(tuple, index.T.tolist())) == expected
    assert attributes.shape == (len(expected), 2)
    assert attributes.dtype == np.float32
    for (i, j), (turn, follows) in zip(expected, attributes.tolist(), strict=True):
        assert turn == pytest.approx(_turn(_bearing(lines[i]), _bearing(lines[j])), abs=2e-6)
        assert follows == float((i, j) in pairs)


def _ends(line: Polyline) -> Polyline:
    return line[0], line[-1]


def _bearing(line: Polyline) -> float:
    (lng0, lat0), (lng1, lat1) = _ends(line)
    return math.atan2(lat1 - lat0, math.cos(math.radians(lat0)) * (lng1 - lng0))


def _turn(a: float, b: float) -> float:
    """Angle between two directions, as a share of half a turn."""
    difference = abs(a - b) % (2 * math.pi)
    return min(difference, 2 * math.pi - difference) / math.pi


def test_opposite_lanes_of_a_street() -> None:
    east, west = [(0.0, 60.0), (1.0, 60.0)], [(1.0, 60.0), (0.0, 60.0)]
    road_map, _ = road_map_of([east, west], [(0, 1)])
    assert bearings(road_map).tolist() == pytest.approx([0.0, math.pi])
    index, attributes = road_edges(road_map)
    assert index.tolist() == [[0, 1], [1, 0]]
    assert attributes.tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_bearings_wrap_at_south_of_west() -> None:
    """Directions of 179 and -179 degrees are 2 degrees apart."""
    up, down = math.radians(1), -math.radians(1)
    lines = [[(0.0, 0.0), (-math.cos(a), math.sin(a))] for a in (up, down)]
    index, attributes = road_edges(road_map_of(lines, [(0, 1)])[0])
    assert index.tolist() == [[0, 1], [1, 0]]
    assert attributes[:, 0].tolist() == pytest.approx([2 / 180] * 2, abs=1e-6)


def test_nearly_the_same_place_is_another_place() -> None:
    lines = [[(0.0, 0.0), (1.0, 1.0)], [(1.0000001, 1.0), (2.0, 2.0)]]
    assert road_edges(road_map_of(lines, [(0, 1)])[0])[0].shape == (2, 0)
