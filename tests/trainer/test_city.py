"""A prepared data set on disk and the statistics that it keeps."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import random_map, random_walks, trips_of
from trainer.data.city import SPLITS, Meta, load_city, make_city, save_city, step_time_statistics
from trainer.data.road_graph import road_edges
from trainer.errors import BadInput


@settings(deadline=None, max_examples=80, database=None)
@given(st.lists(st.lists(st.integers(0, 5000), min_size=1, max_size=5), min_size=1, max_size=6))
def test_step_times_do_not_reach_from_trip_to_trip(steps: list[list[int]]) -> None:
    time_lists = [[1000 * i, *(1000 * i + np.cumsum(part)).tolist()] for i, part in enumerate(steps)]
    mean, std = step_time_statistics(trips_of([[0] * len(times) for times in time_lists], time_lists))
    logs = [math.log1p(seconds) for part in steps for seconds in part]
    expected = math.fsum(logs) / len(logs)
    variance = math.fsum((x - expected) ** 2 for x in logs) / len(logs)
    assert mean == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert std == pytest.approx(math.sqrt(variance), rel=1e-6, abs=1e-12)
    assert std > 0  # so that one may divide by it


def test_save_and_load(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    road_map, _, _ = random_map(rng, 20, 50)
    trips = {split: random_walks(rng, road_map, 5, 6) for split in SPLITS}
    meta = Meta("f", ("a", "b"), 1.5, 0.5, "derived", "provided", {"train": {"time goes back": 2}})
    city = make_city(road_map, meta, rng.integers(0, 3, 20), rng.integers(0, 9, (3, 3)), trips)
    save_city(city, tmp_path)
    found = load_city(tmp_path)
    assert found.meta == meta
    assert found.zones == 3
    for part, other in ((road_map, found.road_map), *((trips[s], found.trips[s]) for s in SPLITS)):
        for field in fields(part):
            ours, theirs = getattr(part, field.name), getattr(other, field.name)
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs), field.name
    index, attributes = road_edges(road_map)
    assert np.array_equal(found.edge_index, index)
    assert np.array_equal(found.edge_attr, attributes)
    assert not found.road_map.points.flags.writeable
    with pytest.raises(BadInput, match="not a prepared data set"):
        load_city(tmp_path / "other")
