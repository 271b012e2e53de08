"""Histograms and divergences against plain Python loops, and cases worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.trainer.test_paths import haversine
from trainer.data.trips import Trips
from trainer.evaluate.distributions import (
    Measures,
    global_divergences,
    histogram,
    jensen_shannon,
)
from trainer.evaluate.paths import Sphere

CENTRES = np.random.default_rng(5).normal([10.0, 50.0], 0.02, (12, 2))


def make_trips(content: list[list[tuple[int, int]]]) -> Trips:
    """Trips from (road, seconds since the road before) pairs."""
    lengths = [len(trip) for trip in content]
    return Trips(
        np.array([road for trip in content for road, _ in trip], dtype=np.int32),
        np.array([t for trip in content for t in 1_000 + np.cumsum([s for _, s in trip])], dtype=np.int64),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


trips_of_any_kind = st.lists(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 400)), min_size=1, max_size=8), min_size=1, max_size=10
).map(make_trips)


def slow_jsd(p: list[int], q: list[int]) -> float:
    total = 0.0
    for a, b in zip(p, q, strict=True):
        a, b = a / sum(p), b / sum(q)
        for x in (a, b):
            total += 0.5 * x * math.log(x / ((a + b) / 2)) if x else 0.0
    return total


def slow_histogram(values: list[float], greatest: float) -> list[int]:
    counts, edges = [0] * 100, np.linspace(0, greatest, 100).tolist()
    for value in values:
        if value > greatest:
            counts[99] += 1
        else:
            inside = [b for b in range(99) if value >= edges[b]]
            counts[inside[-1]] += 1
    return counts


def points_of(trips: Trips) -> list[list[tuple[float, float]]]:
    return [[tuple(CENTRES[road]) for road in trips.roads_of(i)] for i in range(len(trips))]


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.integers(0, 50), min_size=5, max_size=5).filter(any),
    st.lists(st.integers(0, 50), min_size=5, max_size=5).filter(any),
)
def test_divergence_equals_the_sum(p: list[int], q: list[int]) -> None:
    assert jensen_shannon(np.array(p), np.array(q)) == pytest.approx(slow_jsd(p, q), abs=1e-12)


def test_divergence_by_hand() -> None:
    assert jensen_shannon(np.array([1, 0]), np.array([0, 7])) == pytest.approx(math.log(2))
    assert jensen_shannon(np.array([2, 2]), np.array([5, 5])) == 0
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4).
    expected = 0.5 * math.log(4 / 3) + 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert jensen_shannon(np.array([3, 0]), np.array([1, 1])) == pytest.approx(expected)
    with pytest.raises(ValueError, match="without entries"):
        jensen_shannon(np.array([0, 0]), np.array([1, 1]))


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(0, 20), min_size=1, max_size=40), st.floats(0, 15))
@example([0.0, 5e-324, 1.0], 5e-324)
@example([0.0, 1e-310, 5e-311], 1e-310)
def test_histogram_equals_the_loop(values: list[float], greatest: float) -> None:
    assert histogram(np.array(values), greatest).tolist() == slow_histogram(values, greatest)


def test_histogram_by_hand() -> None:
    counts = histogram(np.array([0.0, 0.5, 1.0, 98.5, 99.0, 99.001, 1e9]), 99.0)
    assert counts.sum() == 7
    assert (counts[0], counts[1], counts[98], counts[99]) == (2, 1, 2, 2)
    assert histogram(np.array([0.0, 2.0]), 0.0)[[98, 99]].tolist() == [1, 1]


@settings(deadline=None)  # the first call compiles
@given(trips_of_any_kind)
def test_measures_of_trips_equal_loops(trips: Trips) -> None:
    distance, radius = [], []
    for points in points_of(trips):
        distance.append(sum(haversine(a, b) for a, b in pairwise(points)))
        mean = (sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points))
        radius.append(sum(haversine(p, mean) for p in points) / len(points))
    found = Measures.of(trips, Sphere.of(CENTRES))
    np.testing.assert_allclose(found.distance_km, distance, atol=1e-9)
    np.testing.assert_allclose(found.radius_km, radius, atol=1e-9)
    times = [trips.times_of(i).tolist() for i in range(len(trips))]
    steps = [(b - a) / 60 for t in times for a, b in pairwise(t)]
    assert np.repeat(found.step_minutes, found.step_counts).tolist() == pytest.approx(sorted(steps), abs=1e-12)
    np.testing.assert_allclose(found.minutes, [(t[-1] - t[0]) / 60 for t in times], atol=1e-12)
    assert found.visits.tolist() == [trips.roads.tolist().count(road) for road in range(len(CENTRES))]


def values_of(measures: Measures, field: str) -> list[float]:
    """Every value as often as it is there."""
    values = getattr(measures, field)
    return list((np.repeat(values, measures.step_counts) if field == "step_minutes" else values).tolist())


def test_steps_of_any_length_are_counted() -> None:
    longest = [0, 4095, 4096, 4096, 10**9]
    trips = make_trips([[(0, 0), *((1, seconds) for seconds in longest)], [(2, 0), (3, 4095)]])
    found = Measures.of(trips, Sphere.of(CENTRES))
    assert (found.step_minutes * 60).tolist() == pytest.approx([0, 4095, 4096, 10**9])
    assert found.step_counts.tolist() == [1, 2, 2, 1]


@settings(deadline=None)  # the first call compiles
@given(trips_of_any_kind, trips_of_any_kind)
def test_global_divergences_equal_loops(generated: Trips, real: Trips) -> None:
    measures = [Measures.of(trips, Sphere.of(CENTRES)) for trips in (generated, real)]
    found = global_divergences(*measures)
    visits = [[t.roads.tolist().count(road) for road in range(12)] for t in (generated, real)]
    assert found["RoadVisit_JSD"] == pytest.approx(slow_jsd(*visits), abs=1e-12)
    for name, field in (
        ("Distance_JSD", "distance_km"),
        ("Radius_JSD", "radius_km"),
        ("TripDuration_JSD", "minutes"),
        ("Duration_JSD", "step_minutes"),
    ):
        mine, theirs = (values_of(each, field) for each in measures)
        if not (mine and theirs):
            assert (name, found[name]) == ("Duration_JSD", None)
            continue
        expected = slow_jsd(slow_histogram(mine, max(theirs)), slow_histogram(theirs, max(theirs)))
        assert found[name] == pytest.approx(expected, abs=1e-12)
        assert 0 <= found[name] <= math.log(2) + 1e-12


@settings(deadline=None)  # the first call compiles
@given(trips_of_any_kind)
def test_identical_sets_have_no_divergence(trips: Trips) -> None:
    measures = Measures.of(trips, Sphere.of(CENTRES))
    assert set(global_divergences(measures, measures).values()) <= {0.0, None}


def test_without_a_step_there_is_no_divergence_of_steps() -> None:
    alone, some = (Measures.of(make_trips(t), Sphere.of(CENTRES)) for t in ([[(0, 0)]], [[(0, 0), (1, 60)]]))
    for found in (global_divergences(alone, some), global_divergences(some, alone)):
        assert [name for name, value in found.items() if value is None] == ["Duration_JSD"]
