"""The numbers behind a report's charts and map, against plain ways to compute them."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from trainer.data.roadmap import RoadMap
from trainer.data.trips import Trips
from trainer.errors import BadInput
from trainer.generate.reading import Generated
from trainer.report.curves import MOST_POINTS, thin
from trainer.report.distributions import shares
from trainer.report.journeys import real_partners, same_journeys
from trainer.report.runs import Routes, names_of
from trainer.report.streets import difference_breaks, packed, streets_of, usage_breaks


def road_map(*lines: list[tuple[float, float]]) -> RoadMap:
    nothing = np.zeros(len(lines), np.int64)
    return RoadMap(
        points=np.array([point for line in lines for point in line]),
        point_offsets=np.concatenate([[0], np.cumsum([len(line) for line in lines])]),
        centres=np.zeros((len(lines), 2)),
        length_m=np.ones(len(lines)),
        type_id=nothing,
        successors=np.zeros(0, np.int64),
        successor_offsets=np.zeros(len(lines) + 1, np.int64),
    )


A, B, C, D = (10.0, 50.0), (10.01, 50.0), (10.01, 50.01), (10.02, 50.02)


def test_streets_join_both_directions() -> None:
    streets = streets_of(road_map([A, B, C], [C, B, A], [C, D], [A, B], [A, B, C]))
    assert len(streets) == 3
    assert streets.of_road.tolist() == [0, 0, 1, 2, 0]
    assert streets.backwards.tolist() == [False, True, False, False, False]
    assert streets.signed(np.array([1, 2, 0])).tolist() == [1, 2, 0]
    assert streets.visits(np.array([1, 2, 4, 8, 16])).tolist() == [19, 4, 8]
    assert np.diff(streets.offsets).tolist() == [3, 2, 2]


def test_streets_lie_where_they_are() -> None:
    streets = streets_of(road_map([A, B, C], [C, D]))
    east, north = (streets.points * streets.metres_a_step)[4]
    assert north == pytest.approx(0.02 * 111_195, rel=1e-3)
    assert east == pytest.approx(0.02 * 111_195 * np.cos(np.radians(50.01)), rel=1e-3)
    assert streets.points[0].tolist() == [0, 0]
    assert streets.metres_a_step < 0.04


def test_breaks() -> None:
    assert usage_breaks(np.array([0.0, 3.0, 250.0])) == [5, 10, 20, 50, 100, 200]
    assert usage_breaks(np.zeros(3)) == [0.02, 0.05, 0.1, 0.2, 0.5, 1]
    assert difference_breaks(np.array([-40.0, 0.0, 12.0])) == [5, 10, 20]


@pytest.mark.parametrize(("values", "kind"), [([-1], np.uint8), ([256], np.uint8), ([70_000], np.uint16)])
def test_packing_never_wraps(values: list[int], kind: type[np.integer]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        packed(np.array(values), kind)
    assert base64.b64decode(packed(np.array([1, 258]), np.uint16)) == b"\x01\x00\x02\x01"


def test_shares_are_of_all_values() -> None:
    middles, found = shares(np.array([0.0, 1.0, 9.9, 50.0]), 9.9)
    assert len(middles) == 33
    assert (middles[0], middles[-1]) == pytest.approx((0.15, 9.75))
    assert found[0] == found[3] == found[-1] == 0.25
    assert sum(value for value in found if value is not None) == 0.75


def trips(*roads: list[int]) -> Trips:
    lengths = [len(each) for each in roads]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Trips(np.concatenate(roads).astype(np.int32), np.arange(sum(lengths)), offsets)


def routes(made: Trips, origins: list[int], destinations: list[int], sources: list[int]) -> Routes:
    unknown = np.full(len(made), np.nan)
    ends = Generated(made, np.array(destinations), np.arange(2, len(made) + 2), Counter())
    return Routes(ends, np.array(origins), np.array(sources), np.ones(len(made), int), unknown, unknown)


def test_real_trips_are_found_by_their_row_and_ends() -> None:
    real = trips([1, 2, 3], [4, 5])
    made = routes(trips([1, 3], [4, 6, 5], [4, 5], [1]), [1, 4, 4, 1], [3, 5, 5, 9], [0, 1, -1, 0])
    assert real_partners(made, real).tolist() == [0, 1, -1, -1]
    assert real_partners(made, None).tolist() == [-1] * 4


def test_journeys_of_two_runs() -> None:
    one = routes(Trips(np.array([1, 2, 3]), np.array([10, 20, 30]), np.arange(4)), [1, 2, 3], [7, 8, 9], [0, 1, 2])
    two = routes(Trips(np.array([3, 1, 2]), np.array([30, 10, 21]), np.arange(4)), [3, 1, 2], [9, 7, 8], [2, 0, 1])
    assert same_journeys(one, two).tolist() == [1, -1, 0]
    assert same_journeys(one, one).tolist() == [0, 1, 2]


def test_long_lines_are_thinned_by_means() -> None:
    assert thin([1.0, 2.0]) == [1.0, 2.0]
    found = thin([float(i) for i in range(3 * MOST_POINTS - 1)])
    assert len(found) == MOST_POINTS
    assert (found[0], found[-1]) == (1.0, 3 * MOST_POINTS - 2.5)
    assert thin([]) == []


def test_names(tmp_path: Path) -> None:
    assert names_of([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == ["x/run", "y/run"]
    assert names_of([tmp_path / "x" / "run", tmp_path / "y" / "other"]) == ["run", "other"]
    with pytest.raises(BadInput, match="at most 12"):
        names_of([tmp_path / str(i) for i in range(13)])
