"""Path distances against textbook recursions in plain Python."""

from __future__ import annotations

import math
import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluate.paths import compare_paths, dtw_km, edr, hausdorff_km, haversine_km

Point = tuple[float, float]
KM = 1 / (math.radians(1) * 6371.0088)  # degrees of latitude

# Points on a coarse lattice of 70 m, so that equal points and distances on both sides of 100 m are frequent.
points = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(lambda p: (-122.4 + p[0] * 0.0008, 37.7 + p[1] * 0.00063))
paths = st.lists(points, min_size=1, max_size=12)


def haversine(a: Point, b: Point) -> float:
    lng_a, lat_a, lng_b, lat_b = map(math.radians, (*a, *b))
    h = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lng_b - lng_a) / 2) ** 2
    return 2 * 6371.0088 * math.asin(math.sqrt(h))


def slow_hausdorff(a: list[Point], b: list[Point]) -> float:
    there = max(min(haversine(p, q) for q in b) for p in a)
    back = max(min(haversine(p, q) for p in a) for q in b)
    return max(there, back)


def slow_dtw(a: list[Point], b: list[Point]) -> float:
    @cache
    def cost(i: int, j: int) -> float:
        here = haversine(a[i], b[j])
        if i == j == 0:
            return here
        ways = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        return here + min(cost(*way) for way in ways if min(way) >= 0)

    return cost(len(a) - 1, len(b) - 1)


def slow_edits(a: list[Point], b: list[Point]) -> int:
    @cache
    def edits(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        match = 0 if haversine(a[i - 1], b[j - 1]) <= 0.1 else 1
        return min(edits(i - 1, j - 1) + match, edits(i - 1, j) + 1, edits(i, j - 1) + 1)

    return edits(len(a), len(b))


@given(a=paths, b=paths)
def test_all_measures_equal_the_recursions(a: list[Point], b: list[Point]) -> None:
    found = compare_paths(np.array(a), np.array(b))
    longer = max(len(a), len(b))
    assert found.hausdorff_km == pytest.approx(slow_hausdorff(a, b), abs=1e-9)
    assert found.hausdorff_norm == pytest.approx(slow_hausdorff(a, b) / longer, abs=1e-9)
    assert found.dtw_km == pytest.approx(slow_dtw(a, b), abs=1e-9)
    assert found.dtw_norm == pytest.approx(slow_dtw(a, b) / longer, abs=1e-9)
    assert found.edr == slow_edits(a, b) / longer


@given(a=paths, b=paths)
def test_measures_are_symmetric(a: list[Point], b: list[Point]) -> None:
    there, back = compare_paths(np.array(a), np.array(b)), compare_paths(np.array(b), np.array(a))
    assert there.hausdorff_km == back.hausdorff_km
    assert there.dtw_km == pytest.approx(back.dtw_km, abs=1e-12)
    assert there.edr == back.edr


@given(a=paths)
def test_a_path_is_at_no_distance_from_itself(a: list[Point]) -> None:
    found = compare_paths(np.array(a), np.array(a))
    assert (found.hausdorff_km, found.dtw_km, found.edr) == (0, 0, 0)
    assert (found.hausdorff_norm, found.dtw_norm) == (0, 0)


def test_haversine_of_known_distances() -> None:
    degree = math.pi / 180 * 6371.0088
    a = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 60.0], [0.0, 0.0]])
    b = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 60.0], [180.0, 0.0]])
    expected = [degree, degree, haversine((0, 60), (1, 60)), 180 * degree]
    np.testing.assert_allclose(haversine_km(a, b), expected, rtol=1e-12)
    assert expected[2] == pytest.approx(degree / 2, rel=1e-4)


def test_haversine_broadcasts() -> None:
    a, b = np.array([[0.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    table = haversine_km(a[:, None], b[None])
    assert table.shape == (2, 3)
    assert table[1, 2] == pytest.approx(haversine((0.5, 0.5), (2, 0)))


def test_measures_by_hand() -> None:
    # Along a meridian, in km: a at 0, 1, 2; b at 0, 0.05, 3.
    a = np.array([[7.0, 50.0], [7.0, 50.0 + KM], [7.0, 50.0 + 2 * KM]])
    b = np.array([[7.0, 50.0], [7.0, 50.0 + 0.05 * KM], [7.0, 50.0 + 3 * KM]])
    found = compare_paths(a, b)
    assert found.hausdorff_km == pytest.approx(1.0)  # 3 is 1 from 2; 1 is .95 from .05
    assert found.hausdorff_norm == pytest.approx(1 / 3)
    assert found.dtw_km == pytest.approx(0 + 0.95 + 1)  # 0-0, 1-.05, 2-3
    assert found.dtw_norm == pytest.approx(1.95 / 3)
    assert found.edr == pytest.approx(2 / 3)  # only the first points match


def test_edr_tolerance_is_inclusive_and_edits_are_few() -> None:
    assert edr(np.array([[0.1]])) == 0
    assert edr(np.array([[np.nextafter(0.1, 1)]])) == 1
    assert edr(np.array([[0.3]]), tolerance_km=0.5) == 0
    # One point too many in the middle: a single deletion of four points.
    assert edr(np.array([[0.0, 9, 9], [9, 9, 9], [9, 0.0, 9], [9, 9, 0.0]])) == 1 / 4


def test_single_points() -> None:
    distances = np.array([[2.0, 3.0, 5.0]])
    assert hausdorff_km(distances) == 5
    assert dtw_km(distances) == dtw_km(distances.T) == 10
    assert edr(distances) == edr(distances.T) == 1


def test_sixty_points_take_milliseconds() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.01, (60, 2)), rng.normal(0, 0.01, (60, 2))
    times = []
    for _ in range(20):
        start = time.process_time()
        compare_paths(a, b)
        times.append(time.process_time() - start)
    assert min(times) < 0.01
