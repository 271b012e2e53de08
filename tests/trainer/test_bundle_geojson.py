"""Generated trips as lines: valid by a validator of RFC 7946, and along the roads that the trips took."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geojson_pydantic import FeatureCollection, LineString

from tests.trainer.datasets import Polyline, random_map, random_walks, road_map_of
from trainer.bundle.geojson import collection
from trainer.data.roadmap import RoadMap, read_road_map
from trainer.data.trips import Trips
from trainer.errors import BadInput
from trainer.generate.demand import Demand
from trainer.generate.output import write_generated
from trainer.generate.route import Path as RoadPath
from trainer.generate.route import Route

A, B, C, D = (-122.4, 37.7), (-122.41, 37.71), (-122.42, 37.705), (-122.43, 37.72)


def written(folder: Path, trips: Trips, reached: bool = True) -> Path:
    """A CSV of these trips as `trainer generate` writes it; not reached ones asked for road 0."""
    n = len(trips)
    roads = [trips.roads_of(i).tolist() for i in range(n)]
    times = [trips.times_of(i).tolist() for i in range(n)]
    asked = np.array([road[-1] if reached else 0 for road in roads])
    demand = Demand(np.array([r[0] for r in roads]), asked, np.array([t[0] for t in times]), np.arange(n))
    routes = [Route(RoadPath(tuple(r), tuple(t)), reached, 1) for r, t in zip(roads, times, strict=True)]
    write_generated(folder / "trips.csv", demand, routes, {"trips": n})
    return folder / "trips.csv"


def trip(*roads: int) -> Trips:
    return Trips(np.array(roads, np.int32), np.arange(len(roads)) * 10, np.array([0, len(roads)]))


def geojson(file: Path, road_map: RoadMap) -> dict[str, Any]:
    """The collection, which the validator and the RFC's rules that it does not know let pass."""
    text = "".join(collection(file, road_map, None))
    valid = FeatureCollection.model_validate_json(text)
    assert all(isinstance(feature.geometry, LineString) for feature in valid.features)
    found: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found.keys() == {"type", "features"}  # above all no crs
    for feature in found["features"]:
        for lng, lat in feature["geometry"]["coordinates"]:
            assert -180 <= lng <= 180
            assert -90 <= lat <= 90
            assert (round(lng, 7), round(lat, 7)) == (lng, lat)
    return found


def line_of(folder: Path, polylines: list[Polyline], *roads: int) -> list[list[float]]:
    road_map, _ = road_map_of(polylines, list(pairwise(roads)) or [(0, 0)])
    (feature,) = geojson(written(folder, trip(*roads)), road_map)["features"]
    return list(feature["geometry"]["coordinates"])


def test_longitude_comes_first_and_a_shared_point_stands_once(tmp_path: Path) -> None:
    assert line_of(tmp_path, [[A, B], [B, C, D]], 0, 1) == [list(A), list(B), list(C), list(D)]


def test_roads_that_do_not_meet_keep_all_their_points(tmp_path: Path) -> None:
    assert line_of(tmp_path, [[A, B], [C, D]], 0, 1) == [list(A), list(B), list(C), list(D)]


def test_one_road_is_a_line_too(tmp_path: Path) -> None:
    assert line_of(tmp_path, [[A, B]], 0) == [list(A), list(B)]


def test_a_road_without_length_is_a_line_of_two_equal_points(tmp_path: Path) -> None:
    assert line_of(tmp_path, [[A, A]], 0) == [list(A), list(A)]
    assert line_of(tmp_path, [[A, A], [A, A, B]], 0, 1) == [list(A), list(B)]


def test_there_and_back_keeps_the_way_back(tmp_path: Path) -> None:
    assert line_of(tmp_path, [[A, B], [B, A]], 0, 1) == [list(A), list(B), list(A)]


def test_properties(tmp_path: Path) -> None:
    road_map, _ = road_map_of([[A, B], [B, C], [C, D]], [(1, 2)])
    (feature,) = geojson(written(tmp_path, trip(1, 2)), road_map)["features"]
    times = ["1970-01-01T00:00:00Z", "1970-01-01T00:00:10Z"]
    assert feature["id"] == 0
    assert feature["properties"] == {
        "origin_road_id": 1,
        "destination_road_id": 2,
        "start": times[0],
        "end": times[1],
        "reached": True,
        "gene_trace_road_id": [1, 2],
        "gene_trace_datetime": times,
    }
    (lost,) = geojson(written(tmp_path, trip(1, 2), reached=False), road_map)["features"]
    assert (lost["properties"]["destination_road_id"], lost["properties"]["reached"]) == (0, False)


def test_every_line_is_its_roads_one_after_the_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    road_map, lines, _ = random_map(rng, 60, 200)
    trips = random_walks(rng, road_map, 50, 12)
    features = geojson(written(tmp_path, trips), road_map)["features"]
    assert [feature["id"] for feature in features] == list(range(50))
    for i, feature in enumerate(features):
        points = [point for road in trips.roads_of(i).tolist() for point in lines[road]]
        expected = [list(point) for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
        assert feature["geometry"]["coordinates"] == expected


def test_real_trips_never_leave_the_roads(core_data: Path, tmp_path: Path) -> None:
    """On a real map all roads of a trip meet, so every two neighbouring points are a piece of one of its roads."""
    road_map, _ = read_road_map(core_data)
    trips = random_walks(np.random.default_rng(1), road_map, 40, 40)
    for i, feature in enumerate(geojson(written(tmp_path, trips), road_map)["features"]):
        pieces = set()
        for road in trips.roads_of(i).tolist():
            points = road_map.points[road_map.point_offsets[road] : road_map.point_offsets[road + 1]].round(7).tolist()
            pieces |= {(tuple(a), tuple(b)) for a, b in pairwise(points)}
        points = [tuple(point) for point in feature["geometry"]["coordinates"]]
        assert set(pairwise(points)) <= pieces


def test_the_count_must_be_the_one_that_was_said(tmp_path: Path) -> None:
    road_map, _ = road_map_of([[A, B]], [(0, 0)])
    file = written(tmp_path, trip(0))
    assert "".join(collection(file, road_map, 1))
    with pytest.raises(BadInput, match=r"trips\.csv: holds 1 trips, trips\.json says 2: generate again"):
        list(collection(file, road_map, 2))


def test_memory_does_not_grow_with_the_trips(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    road_map, _, _ = random_map(rng, 60, 300)
    walks = random_walks(rng, road_map, 100, 60)
    offsets = np.concatenate([[0], np.cumsum(np.tile(walks.lengths, 8))])
    file = written(tmp_path, Trips(np.tile(walks.roads, 8), np.tile(walks.times, 8), offsets))
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in collection(file, road_map, 800))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 2_000_000
    assert peak < 300_000
