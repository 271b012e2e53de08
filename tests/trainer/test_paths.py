"""Path distances against textbook recursions in plain Python."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import trips_of
from trainer.evaluate.distributions import Measures
from trainer.evaluate.paths import Sphere, compare_pairs

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


def compare(a: list[Point], b: list[Point]) -> dict[str, float]:
    """What is found between two paths whose points are roads of their own."""
    one, other = list(range(len(a))), list(range(len(a), len(a) + len(b)))
    mine, theirs = (trips_of([roads], [[0] * len(roads)]) for roads in (one, other))
    found = compare_pairs(mine, theirs, np.array([[0, 0]]), Sphere.of(np.array([*a, *b], dtype=np.float64)))
    return {name: float(values[0]) for name, values in vars(found).items()}


# Anywhere on Earth, where the loops take their long way.
far_points = st.tuples(st.floats(-180, 180), st.floats(-90, 90))
far_paths = st.lists(far_points, min_size=1, max_size=6)


@settings(deadline=None)  # the first call compiles
@given(a=far_paths, b=far_paths)
def test_far_paths_equal_the_recursions(a: list[Point], b: list[Point]) -> None:
    found = compare(a, b)
    assert found["hausdorff_km"] == pytest.approx(slow_hausdorff(a, b), rel=1e-9, abs=1e-3)
    assert found["dtw_km"] == pytest.approx(slow_dtw(a, b), rel=1e-9, abs=1e-3)


@settings(deadline=None)  # the first call compiles
@given(a=paths, b=paths)
def test_all_measures_equal_the_recursions(a: list[Point], b: list[Point]) -> None:
    found, longer = compare(a, b), max(len(a), len(b))
    assert found["hausdorff_km"] == pytest.approx(slow_hausdorff(a, b), abs=1e-9)
    assert found["hausdorff_norm"] == pytest.approx(slow_hausdorff(a, b) / longer, abs=1e-9)
    assert found["dtw_km"] == pytest.approx(slow_dtw(a, b), abs=1e-9)
    assert found["dtw_norm"] == pytest.approx(slow_dtw(a, b) / longer, abs=1e-9)
    assert found["edr"] == slow_edits(a, b) / longer


@settings(deadline=None)  # the first call compiles
@given(a=paths, b=paths)
def test_measures_are_symmetric(a: list[Point], b: list[Point]) -> None:
    there, back = compare(a, b), compare(b, a)
    assert there["hausdorff_km"] == back["hausdorff_km"]
    assert there["dtw_km"] == pytest.approx(back["dtw_km"], abs=1e-12)
    assert there["edr"] == back["edr"]


@settings(deadline=None)  # the first call compiles
@given(a=paths)
def test_a_path_is_at_no_distance_from_itself(a: list[Point]) -> None:
    assert set(compare(a, a).values()) == {0.0}


def between(a: Point, b: Point) -> float:
    return compare([a], [b])["hausdorff_km"]


def test_known_distances() -> None:
    degree = math.pi / 180 * 6371.0088
    assert between((0.0, 0.0), (0.0, 1.0)) == pytest.approx(degree, rel=1e-12)
    assert between((0.0, 0.0), (1.0, 0.0)) == pytest.approx(degree, rel=1e-12)
    assert between((0.0, 60.0), (1.0, 60.0)) == pytest.approx(haversine((0, 60), (1, 60)), rel=1e-12)
    assert between((0.0, 0.0), (180.0, 0.0)) == pytest.approx(180 * degree, rel=1e-12)


@pytest.mark.parametrize("km", [1e-6, 0.05, 3.0, 40.0, 50.0, 52.0, 500.0, 9000.0])
def test_the_short_way_and_the_long_way_agree(km: float) -> None:
    a, b = (10.0, 0.0), (10.0, km * KM)
    assert Sphere.of(np.array([a, b])).near == (km < 51)
    assert between(a, b) == pytest.approx(km, rel=1e-12, abs=1e-11)


def test_measures_by_hand() -> None:
    # Along a meridian, in km: a at 0, 1, 2; b at 0, 0.05, 3.
    a = [(7.0, 50.0), (7.0, 50.0 + KM), (7.0, 50.0 + 2 * KM)]
    b = [(7.0, 50.0), (7.0, 50.0 + 0.05 * KM), (7.0, 50.0 + 3 * KM)]
    found = compare(a, b)
    assert found["hausdorff_km"] == pytest.approx(1.0)  # 3 is 1 from 2; 1 is .95 from .05
    assert found["hausdorff_norm"] == pytest.approx(1 / 3)
    assert found["dtw_km"] == pytest.approx(0 + 0.95 + 1)  # 0-0, 1-.05, 2-3
    assert found["dtw_norm"] == pytest.approx(1.95 / 3)
    assert found["edr"] == pytest.approx(2 / 3)  # only the first points match


def test_points_match_up_to_a_hundred_metres_and_edits_are_few() -> None:
    north = [(7.0, 50.0 + KM * km) for km in (0.0, 0.0999999, 0.1000001)]
    assert compare(north[:1], north[1:2])["edr"] == 0
    assert compare(north[:1], north[2:])["edr"] == 1
    # One point too many in the middle: a single deletion of four points.
    line = [(7.0, 50.0 + KM * km) for km in (0, 5, 1, 2)]
    assert compare(line, [line[0], *line[2:]])["edr"] == 1 / 4


def test_single_points() -> None:
    line = [(7.0, 50.0 + KM * km) for km in (2, 3, 5)]
    for found in (compare([(7.0, 50.0)], line), compare(line, [(7.0, 50.0)])):
        assert found["hausdorff_km"] == pytest.approx(5)
        assert found["dtw_km"] == pytest.approx(10)
        assert found["edr"] == 1


def test_no_pair_gives_no_distance() -> None:
    trips = trips_of([[0]], [[0]])
    assert len(compare_pairs(trips, trips, np.zeros((0, 2), np.int64), Sphere.of(np.array([[0.0, 0.0]]))).edr) == 0


def test_pairs_are_compared_in_order() -> None:
    centres = np.random.default_rng(0).normal([10.0, 50.0], 0.01, (6, 2))
    mine, theirs = trips_of([[0, 1], [2, 3, 4]], [[0] * 2, [0] * 3]), trips_of([[5, 4], [1]], [[0] * 2, [0]])
    found = compare_pairs(mine, theirs, np.array([[1, 0], [0, 1]]), Sphere.of(centres))
    points = [tuple(centre) for centre in centres.tolist()]
    expected = [slow_dtw(points[2:5], [points[5], points[4]]), slow_dtw(points[:2], points[1:2])]
    assert found.dtw_km == pytest.approx(expected)
    assert found.dtw_norm == pytest.approx([expected[0] / 3, expected[1] / 2])


def test_arrays_on_disk_are_read_as_they_are(tmp_path: Path) -> None:
    """Prepared trips are read-only memory maps."""
    trips = trips_of([[0, 1, 2], [2, 1]], [[0, 30, 90], [5, 65]])
    for name, array in vars(trips).items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = type(trips)(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in vars(trips)))
    sphere = Sphere.of(np.array([[10.0, 50.0], [10.0, 50.01], [10.01, 50.01]]))
    found = compare_pairs(mapped, trips, np.array([[0, 1], [1, 0]]), sphere)
    assert found.dtw_km[0] == pytest.approx(found.dtw_km[1])
    assert Measures.of(mapped, sphere).step_counts.tolist() == [1, 2]  # of 0.5 and 1 minute


NOWHERE = "import numba.core.caching as c; c.CacheImpl._locator_classes = []  # root could write anywhere"
PROGRAM = """
import numpy as np
from trainer.evaluate.kernels import count_bins
counts = np.zeros(4, np.int64)
count_bins(np.array([0.5, 7.0]), np.array([0.0, 1.0, 2.0, 3.0]), counts)
print(counts.tolist(), sum(getattr(count_bins.stats, "cache_hits", {}).values()))
"""


@pytest.mark.parametrize("kept", [True, False])
def test_compiled_code_is_kept_where_it_can_be(kept: bool, tmp_path: Path) -> None:
    """A second process reads it; where no folder can be written, it compiles anew and works all the same."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    words = [sys.executable, "-c", ("" if kept else NOWHERE) + PROGRAM]
    for process in range(2 if kept else 1):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=100)
        assert (done.stdout, done.stderr) == (f"[1, 0, 0, 1] {process if kept else 0}\n", "")
    assert bool(list(tmp_path.rglob("*.nbc"))) == kept
