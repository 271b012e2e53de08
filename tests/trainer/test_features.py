"""The feature builder against slow scalar Python on random trips of random maps, ragged and padded."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import random_map, random_walks, road_map_of, trips_of
from trainer.data.batches import Batch, collate
from trainer.data.features import IGNORED, Features, Labels, Network, build_features, build_labels, step_mask
from trainer.data.roadmap import RoadMap
from trainer.data.trips import Trips

RADIUS_M = 6_371_008.8


def haversine(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Metres between two (lng, lat)."""
    lng0, lat0, lng1, lat1 = map(math.radians, (*a, *b))
    h = math.sin((lat1 - lat0) / 2) ** 2 + math.cos(lat0) * math.cos(lat1) * math.sin((lng1 - lng0) / 2) ** 2
    return 2 * RADIUS_M * math.asin(min(1.0, math.sqrt(h)))


def direction(start: list[float], end: list[float], rule: str) -> float:
    d_lng, d_lat = end[0] - start[0], end[1] - start[1]
    if rule == "original":
        return math.atan2(d_lng, math.cos(math.radians(start[0])) * d_lat)
    return math.atan2(d_lat, math.cos(math.radians(start[1])) * d_lng)


def inputs(network: Network, batch: Batch, angle: str = "original") -> tuple[Features, Labels]:
    destination = batch.roads.gather(1, batch.steps[:, None])[:, 0]
    features = build_features(
        network, batch.roads[:, :-1], batch.times[:, :-1], batch.steps, destination, batch.weekend, angle=angle
    )
    return features, build_labels(features, batch.roads[:, 1:], batch.times[:, 1:] - batch.times[:, :-1])


def check_trip(
    road_map: RoadMap,
    roads: list[int],
    times: list[int],
    weekend: bool,
    found: Features,
    labels: Labels,
    b: int,
    rule: str,
) -> None:
    """Row b of a batch against one trip."""
    steps = len(roads) - 1
    centres, lasts = road_map.centres.tolist(), road_map.last_points.tolist()
    assert found.steps[b] == steps
    assert found.destination[b] == roads[-1]
    assert found.roads[b, :steps].tolist() == roads[:-1]
    clock = [np.float32(seconds % 86_400 / 60 / 1440) for seconds in times[:-1]]
    assert found.temporal_info[b, :steps].tolist() == [-share if weekend else share for share in clock]
    for s in range(steps):
        for t in range(steps):
            metres = haversine(centres[roads[s]], centres[roads[t]])
            assert float(found.distance[b, s, t]) == pytest.approx(min(metres, 1000) / 1000, abs=2e-6)
            minutes = abs(float(clock[s] * np.float32(1440)) - float(clock[t] * np.float32(1440)))
            assert float(found.interval[b, s, t]) == pytest.approx(min(minutes, 5) / 5, abs=2e-5)
    for t in range(steps):
        check_step(road_map, centres, lasts, roads, t, found, labels, b, rule)
        assert labels.seconds[b, t] == times[t + 1] - times[t]


def check_step(
    road_map: RoadMap,
    centres: list,
    lasts: list,
    roads: list[int],
    t: int,
    found: Features,
    labels: Labels,
    b: int,
    rule: str,  # type: ignore[type-arg]
) -> None:
    low, high = road_map.successor_offsets[roads[t] : roads[t] + 2]
    expected = road_map.successors[low:high].tolist()
    count = len(expected)
    assert found.candidate_mask[b, t].tolist() == [k < count for k in range(found.candidates.shape[2])]
    assert found.candidates[b, t, :count].tolist() == expected
    assert labels.choice[b, t] == (expected.index(roads[t + 1]) if roads[t + 1] in expected else IGNORED)
    metres = [haversine(centres[road], centres[roads[-1]]) for road in expected]
    here = lasts[roads[t]]
    goal = direction(here, lasts[roads[-1]], rule)
    for k, road in enumerate(expected):
        distance = math.log1p((metres[k] - min(metres)) / 100)
        assert float(found.metric_distance[b, t, k]) == pytest.approx(distance, abs=2e-6)
        turn = abs(direction(here, lasts[road], rule) - goal)
        angle = (2 * math.pi - turn if turn > math.pi else turn) / math.pi
        assert float(found.metric_angle[b, t, k]) == pytest.approx(angle, abs=2e-6)


@settings(deadline=None, max_examples=40, database=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.sampled_from(["original", "geographic"]))
def test_features_of_random_batches(seed: int, max_steps: int, rule: str) -> None:
    rng = np.random.default_rng(seed)
    road_map, _, _ = random_map(rng, int(rng.integers(3, 15)), int(rng.integers(3, 40)))
    trips = random_walks(rng, road_map, trips=4, longest=7)
    chosen = rng.integers(0, 4, 3)
    found, labels = inputs(Network.of(road_map), collate(trips, chosen, max_steps), rule)
    for b, i in enumerate(chosen):
        weekend = datetime.fromtimestamp(int(trips.times_of(i)[0]), UTC).weekday() >= 5
        roads, times = (x[-max_steps - 1 :].tolist() for x in (trips.roads_of(i), trips.times_of(i)))
        check_trip(road_map, roads, times, weekend, found, labels, b, rule)
    assert found.candidate_mask.any(-1).sum() == sum(min(len(trips.roads_of(i)) - 1, max_steps) for i in chosen)


@settings(deadline=None, max_examples=30, database=None)
@given(st.integers(0, 2**32))
def test_padding_and_batch_mates_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    road_map, _, _ = random_map(rng, 10, 25)
    network, trips = Network.of(road_map), random_walks(rng, road_map, trips=5, longest=9)
    together, labels = inputs(network, collate(trips, np.arange(5), 100))
    for b in range(5):
        alone, own = inputs(network, collate(trips, np.array([b]), 100))
        steps = int(alone.steps[0])
        for name in ("temporal_info", "distance", "interval", "candidates", "metric_distance", "metric_angle"):
            whole, part = getattr(together, name)[b], getattr(alone, name)[0]
            if name in ("distance", "interval"):
                whole = whole[:, :steps]
            assert torch.equal(whole[:steps], part[:steps]), name
        assert torch.equal(labels.choice[b, :steps], own.choice[0])
        assert not together.candidate_mask[b, steps:].any()
        assert (labels.choice[b, steps:] == IGNORED).all()


@settings(deadline=None, max_examples=100, database=None)
@given(st.lists(st.tuples(st.floats(-179, 179), st.floats(-89, 89)), min_size=2, max_size=6))
def test_distances_are_haversine_everywhere_on_earth(places: list[tuple[float, float]]) -> None:
    road_map, _ = road_map_of([[place, place] for place in places], [(0, 0)])
    roads = torch.arange(len(places))
    found = Network.of(road_map).distance_m(roads[:, None], roads[None, :])
    expected = [[haversine(a, b) for b in places] for a in places]
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-7, abs=1e-5)


def line_of_roads(*metres: float) -> RoadMap:
    """Short roads northwards along the meridian of Greenwich; road 0 leads to all, the last one nowhere."""
    degrees = [m / (math.pi * RADIUS_M / 180) for m in metres]
    count = len(degrees)
    return road_map_of([[(0.0, d), (0.0, d)] for d in degrees], [(0, road) for road in range(count)])[0]


def one_trip(road_map: RoadMap, trips: Trips) -> tuple[Features, Labels]:
    return inputs(Network.of(road_map), collate(trips, np.array([0]), 100))


def test_distances_and_intervals_are_clipped() -> None:
    road_map = road_map_of([[(0.0, d), (0.0, d)] for d in (0.0, 0.5 / 111.195, 2.0)], [(0, 1), (1, 2), (2, 0)])[0]
    found, _ = one_trip(road_map, trips_of([[0, 1, 2, 0]], [[0, 60, 60 + 301, 1000]]))
    assert found.distance[0].tolist() == [
        pytest.approx([0, 0.5, 1], abs=1e-5),
        pytest.approx([0.5, 0, 1], abs=1e-5),
        [1, 1, 0],
    ]
    assert found.interval[0].tolist() == [
        pytest.approx([0, 0.2, 1], abs=1e-5),
        pytest.approx([0.2, 0, 1], abs=1e-5),
        pytest.approx([1, 1, 0], abs=1e-5),
    ]


def test_over_midnight_the_clock_jumps_and_the_kind_of_day_stays() -> None:
    """Contract: no midnight wrap in the intervals; the first point says whether it is a weekend."""
    friday = int(datetime(2008, 5, 16, 23, 59, 30, tzinfo=UTC).timestamp())
    found, labels = one_trip(
        line_of_roads(0, 10, 20), trips_of([[0, 0, 0, 1]], [[friday, friday + 31, friday + 61, friday + 70]])
    )
    share = [(86_400 - 30) / 86_400, 1 / 86_400, 31 / 86_400]
    assert found.temporal_info[0].tolist() == pytest.approx(share, abs=1e-7)
    assert found.interval[0, 0].tolist() == [0, 1, 1]
    assert float(found.interval[0, 1, 2]) == pytest.approx(0.1, abs=1e-5)
    assert labels.seconds[0].tolist() == [31, 30, 9]
    saturday, _ = one_trip(
        line_of_roads(0, 10, 20), trips_of([[0, 0, 1]], [[friday + 86_400, friday + 86_460, friday + 86_470]])
    )
    assert (saturday.temporal_info[0] < 0).all()
    sunday_night = friday + 2 * 86_400
    monday, _ = one_trip(
        line_of_roads(0, 10, 20), trips_of([[0, 0, 1]], [[sunday_night, sunday_night + 60, sunday_night + 70]])
    )
    assert (monday.temporal_info[0] < 0).all()


def test_a_dead_end_has_no_candidates_and_no_label_and_finite_features() -> None:
    found, labels = one_trip(line_of_roads(0, 10, 20), trips_of([[0, 2, 0, 1]], [[0, 1, 2, 3]]))
    assert found.candidate_mask.any(-1).tolist() == [[True, False, True]]
    assert labels.choice.tolist() == [[2, IGNORED, 1]]
    for name in ("temporal_info", "distance", "interval", "metric_distance", "metric_angle"):
        assert torch.isfinite(getattr(found, name)).all(), name


def test_a_step_that_is_no_relation_has_no_label() -> None:
    road_map = road_map_of([[(0.0, 0.0), (0.0, 1.0)]] * 3, [(0, 1), (1, 2)])[0]
    _, labels = one_trip(road_map, trips_of([[0, 2, 1]], [[0, 1, 2]]))
    assert labels.choice.tolist() == [[IGNORED, IGNORED]]


def test_a_padded_slot_is_never_the_label() -> None:
    """Candidates are padded with road 0, which must not be taken for the next road."""
    road_map = road_map_of([[(0.0, 0.0), (0.0, 1.0)]] * 3, [(0, 1), (0, 2), (1, 2)])[0]
    _, labels = one_trip(road_map, trips_of([[1, 0, 1]], [[0, 1, 2]]))
    assert labels.choice.tolist() == [[IGNORED, 0]]


def test_step_mask() -> None:
    assert step_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
