"""The whole evaluation: a case by hand, identical sets, a slow oracle and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.trainer.test_distributions import CENTRES, make_trips, trips_of_any_kind
from tests.trainer.test_paths import slow_dtw, slow_edits, slow_hausdorff
from trainer.data.trips import Trips
from trainer.errors import BadInput
from trainer.evaluate.cells import Cell
from trainer.evaluate.judge import FIGURES, Ground, judge

COUNTS = ("generated_trips", "real_trips", "compared_pairs")
CELL = Cell()


def figures_of(
    generated: Trips, real: Trips, centres: np.ndarray, requested: np.ndarray | None = None, cell: Cell = CELL
) -> dict[str, float | None]:
    return judge(generated, real, Ground.of(centres, cell), requested).figures


# Roads on a meridian at 0, 1, 2 and 3 km: every road is in a cell of its own.
KM = 1 / (math.radians(1) * 6371.0088)
LINE = np.array([[10.0, 0.0005 + 0 * KM], [10.0, 0.0005 + KM], [10.0, 0.0005 + 2 * KM], [10.0, 0.0005 + 3 * KM]])


def divergence(shares: list[tuple[float, float]]) -> float:
    return sum(0.5 * x * math.log(2 * x / (p + q)) for p, q in shares for x in (p, q) if x)


def test_by_hand() -> None:
    real = make_trips([[(0, 0), (1, 60), (2, 60), (3, 60)], [(1, 0), (2, 30)], [(3, 0), (0, 60), (3, 60)]])
    generated = make_trips([[(0, 0), (3, 120)], [(3, 0), (2, 60)]])
    found = figures_of(generated, real, LINE, np.array([3, 1]))
    assert set(found) == {*FIGURES, *COUNTS}
    assert found["compared_pairs"] == 1  # only 0 -> 3 is in both
    assert found["Hausdorff_km"] == pytest.approx(1.0)
    assert found["Hausdorff_norm"] == pytest.approx(1 / 4)
    assert found["DTW_km"] == pytest.approx(2.0)
    assert found["DTW_norm"] == pytest.approx(2 / 4)
    assert found["EDR"] == pytest.approx(2 / 4)
    assert found["od_pair_match_rate"] == 1 / 2
    assert found["origin_match_rate"] == 1.0
    assert found["destination_match_rate"] == 1.0
    assert found["destination_reached_rate"] == 1 / 2
    # Distances: 3 and 1 km against 3, 1 and 6 km. Steps: 2 and 1 min against five of 1 min and one of 0.5 min.
    assert found["Distance_JSD"] == pytest.approx(divergence([(1 / 2, 1 / 3), (1 / 2, 1 / 3), (0, 1 / 3)]))
    assert found["Duration_JSD"] == pytest.approx(divergence([(1 / 2, 0), (1 / 2, 5 / 6), (0, 1 / 6)]))


@settings(deadline=None)  # the first call compiles
@given(trips_of_any_kind)
def test_identical_sets(trips: Trips) -> None:
    last = trips.roads[trips.offsets[1:] - 1]
    found = figures_of(trips, trips, CENTRES, last)
    assert found["compared_pairs"] == len(trips)
    for name in ("Distance_JSD", "Radius_JSD", "TripDuration_JSD", "RoadVisit_JSD", "Hausdorff_km", "DTW_km", "EDR"):
        assert found[name] == 0
    for name in ("od_pair_match_rate", "origin_match_rate", "destination_match_rate", "destination_reached_rate"):
        assert found[name] == 1


@settings(deadline=None)  # the first call compiles
@given(trips_of_any_kind, trips_of_any_kind)
def test_local_means_equal_a_slow_oracle(generated: Trips, real: Trips) -> None:
    size = 0.02  # degrees: a few roads a cell
    cell = {road: tuple(math.floor(x / size) for x in CENTRES[road]) for road in range(len(CENTRES))}
    left = list(range(len(real)))
    hausdorff, dtw, edits = [], [], []
    for trip in range(len(generated)):
        mine = generated.roads_of(trip).tolist()
        for other in left:
            theirs = real.roads_of(other).tolist()
            if (cell[mine[0]], cell[mine[-1]]) == (cell[theirs[0]], cell[theirs[-1]]):
                left.remove(other)
                a, b = [tuple(CENTRES[r]) for r in mine], [tuple(CENTRES[r]) for r in theirs]
                hausdorff.append(slow_hausdorff(a, b))
                dtw.append(slow_dtw(a, b))
                edits.append(slow_edits(a, b) / max(len(a), len(b)))
                break
    found = figures_of(generated, real, CENTRES, cell=Cell(size))
    assert found["compared_pairs"] == len(dtw)
    if dtw:
        assert found["Hausdorff_km"] == pytest.approx(np.mean(hausdorff), abs=1e-9)
        assert found["DTW_km"] == pytest.approx(np.mean(dtw), abs=1e-9)
        assert found["EDR"] == pytest.approx(np.mean(edits))
    else:
        assert found["Hausdorff_km"] is found["DTW_km"] is found["DTW_norm"] is found["EDR"] is None


def test_what_cannot_be_said_is_none_and_never_nan() -> None:
    found = figures_of(make_trips([[(0, 0)]]), make_trips([[(3, 0), (2, 60)]]), LINE)
    nothing = {name for name, value in found.items() if value is None}
    assert nothing == {
        "Duration_JSD", "Hausdorff_km", "Hausdorff_norm", "DTW_km", "DTW_norm", "EDR", "destination_reached_rate",
    }  # fmt: skip
    assert found["compared_pairs"] == 0
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("generated", "real", "message"),
    [
        ([], [[(0, 0)]], "no generated trips"),
        ([[(0, 0)]], [], "no real trips"),
        ([[(0, 0)], []], [[(0, 0)]], "generated trip 1 has no road"),
        ([[(0, 0)]], [[(0, 0)], [(1, 0), (4, 1)]], r"real trip 1: road 4 is not on the road map \(0\.\.3\)"),
        ([[(-1, 0)]], [[(0, 0)]], "generated trip 0: road -1"),
    ],
)
def test_unusable_trips_are_named(
    generated: list[list[tuple[int, int]]], real: list[list[tuple[int, int]]], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        figures_of(make_trips(generated), make_trips(real), LINE)


def test_every_trip_needs_its_destination() -> None:
    trips = make_trips([[(0, 0)], [(1, 0)]])
    with pytest.raises(ValueError, match="1 requested destinations for 2"):
        figures_of(trips, trips, LINE, np.array([0]))


def _real_trips(file: Path, count: int) -> Trips:
    content = []
    with file.open(newline="") as stream:
        for row in list(csv.DictReader(stream))[:count]:
            stamps = [t.removesuffix("Z") for t in row["time_list"].split(",")]
            seconds = np.array(stamps, dtype="datetime64[s]").astype(np.int64)
            content.append(list(zip(json.loads(row["rid_list"]), np.diff(seconds, prepend=seconds[0]), strict=True)))
    return make_trips(content)


def test_two_halves_of_real_trips_are_alike_but_not_equal(core_data: Path) -> None:
    with (core_data / "roadmap.geo").open(newline="") as stream:
        centres = np.array([np.mean(json.loads(row["coordinates"]), axis=0) for row in csv.DictReader(stream)])
    train, test = _real_trips(core_data / "train.csv", 800), _real_trips(core_data / "test.csv", 800)
    found = figures_of(test, train, centres, cell=Cell(400, "metre"))
    assert 0 < found["Distance_JSD"] < 0.15
    assert 0 < found["Radius_JSD"] < 0.15
    assert 0 < found["Duration_JSD"] < 0.05
    assert found["compared_pairs"] > 50
    assert 0.05 < found["Hausdorff_km"] < 1.0
    assert found["Hausdorff_km"] < found["DTW_km"]
    assert 0.1 < found["EDR"] < 1.0
    assert 0.9 < found["origin_match_rate"] <= 1.0
