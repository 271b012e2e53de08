"""Scenarios of requests against plain Python, and their tables by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_distributions import CENTRES, make_trips, trips_of_any_kind
from tests.trainer.test_paths import KM, haversine
from trainer.data.trips import Trips
from trainer.evaluate.cells import Cell
from trainer.evaluate.judge import FIGURES, Ground, judge
from trainer.evaluate.paths import Sphere
from trainer.evaluate.scenarios import HOURS, NAMES, Requests, Scenarios, scenario_tables

SPHERE = Sphere.of(CENTRES)
NOWHERE = Scenarios(SPHERE, (1.0, 2.0), np.zeros(len(CENTRES), bool))


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@given(st.integers(0, 4_000_000_000))
def test_days_and_hours_equal_the_calendar(start: int) -> None:
    codes = NOWHERE.codes(Requests(np.array([0]), np.array([1]), np.array([start])))
    when = datetime.fromtimestamp(start, UTC)
    assert NAMES["day"][codes["day"][0]] == ("weekend" if when.weekday() >= 5 else "weekday")
    (band,) = [name for name, (begin, end) in HOURS.items() if begin <= when.hour < end]
    assert NAMES["hour"][codes["hour"][0]] == band


@pytest.mark.parametrize(
    ("time", "day", "hour"),
    [
        ("2008-05-16T23:59:59", "weekday", "late"),
        ("2008-05-17T00:00:00", "weekend", "night"),
        ("2008-05-18T05:59:59", "weekend", "night"),
        ("2008-05-18T06:00:00", "weekend", "morning"),
        ("2008-05-19T10:00:00", "weekday", "midday"),
        ("2008-05-19T15:59:59", "weekday", "midday"),
        ("2008-05-19T16:00:00", "weekday", "evening"),
        ("2008-05-19T20:00:00", "weekday", "late"),
    ],
)
def test_edges_of_days_and_hours(time: str, day: str, hour: str) -> None:
    codes = NOWHERE.codes(Requests(np.array([0]), np.array([1]), np.array([at(time)])))
    assert (NAMES["day"][codes["day"][0]], NAMES["hour"][codes["hour"][0]]) == (day, hour)


@settings(deadline=None)
@given(trips_of_any_kind, trips_of_any_kind)
def test_lengths_are_cut_at_the_real_trips_terciles(trips: Trips, real: Trips) -> None:
    scenarios = Scenarios.of(trips, real, SPHERE)

    def lengths(of: Trips) -> list[float]:
        ends = [(of.roads_of(i)[0], of.roads_of(i)[-1]) for i in range(len(of))]
        return [haversine(tuple(CENTRES[a]), tuple(CENTRES[b])) for a, b in ends]

    low, high = scenarios.terciles_km
    assert (low, high) == pytest.approx(np.quantile(lengths(real), [1 / 3, 2 / 3]), abs=1e-9)
    for km, code in zip(lengths(trips), scenarios.codes(Requests.of(trips))["length"], strict=True):
        if min(abs(km - low), abs(km - high)) > 1e-9:
            assert NAMES["length"][code] == ("short" if km <= low else "medium" if km <= high else "long")


def test_the_request_counts_and_not_what_was_reached() -> None:
    trips = make_trips([[(0, 0), (1, 60)]])
    requests = Requests.of(trips, np.array([5]))
    assert (requests.origins.tolist(), requests.destinations.tolist()) == ([0], [5])
    assert requests.starts.tolist() == trips.times[:1].tolist()
    assert Requests.of(trips).destinations.tolist() == [1]


# Roads 1 km apart on a meridian, each in a density cell of its own.
LINE = Sphere.of(np.array([[10.0, 0.001 + i * KM] for i in range(5)]))


def test_the_centre_is_where_half_of_all_visits_are() -> None:
    # Visits of roads 0..4: 1, 4, 3, 1, 1. Road 1 alone has 4 of 10; with road 2 it is 7.
    train = make_trips([[(1, 0), (2, 1), (1, 1), (2, 1)], [(0, 0), (1, 1), (2, 1), (1, 1), (3, 1), (4, 1)]])
    found = Scenarios.of(train, train, LINE)
    assert found.central.tolist() == [False, True, True, False, False]
    requests = Requests(np.array([1, 1, 0, 3]), np.array([2, 0, 2, 4]), np.zeros(4, np.int64))
    places = [NAMES["place"][code] for code in found.codes(requests)["place"]]
    assert places == ["centre", "between", "between", "periphery"]
    assert found.lines()["central_roads"] == 2


def test_exactly_half_is_enough_and_equals_are_taken_in_order() -> None:
    train = make_trips([[(0, 0), (1, 1), (2, 1), (3, 1)]])
    assert Scenarios.of(train, train, LINE).central.tolist() == [True, True, False, False, False]


def test_tables_hold_every_scenario_and_say_what_is_empty() -> None:
    monday, saturday = at("2008-05-19T08:00:00"), at("2008-05-17T21:00:00")

    def trips(*starts: int) -> Trips:
        made = make_trips([[(0, 0), (1, 60), (2, 60)]] * len(starts))
        return Trips(made.roads, np.repeat(starts, 3) + np.tile([0, 60, 120], len(starts)), made.offsets)

    generated, real = trips(monday, monday), trips(monday, saturday)
    ground = Ground.of(LINE.centres, Cell())
    destinations = np.array([2, 3])
    tables = scenario_tables(generated, destinations, real, ground, Scenarios.of(real, real, LINE))
    assert {kind: tuple(rows) for kind, rows in tables.items()} == NAMES
    weekday, weekend = tables["day"]["weekday"], tables["day"]["weekend"]
    expected = judge(generated, real.select(np.array([0])), ground, destinations).figures
    assert weekday == expected
    assert weekday["destination_reached_rate"] == 1 / 2
    assert weekend["empty"] == "no generated trips"
    assert (weekend["generated_trips"], weekend["real_trips"], weekend["compared_pairs"]) == (0, 1, 0)
    assert {weekend[name] for name in FIGURES} == {None}
    assert tables["hour"]["night"]["empty"] == "no generated and no real trips"
    assert tables["hour"]["morning"]["generated_trips"] == 2
    json.dumps(tables, allow_nan=False)


@settings(deadline=None, max_examples=20)
@given(trips_of_any_kind, trips_of_any_kind)
def test_every_trip_is_in_one_scenario_of_each_kind(generated: Trips, real: Trips) -> None:
    last = generated.roads[generated.offsets[1:] - 1].astype(np.int64)
    scenarios = Scenarios.of(real, real, SPHERE)
    tables = scenario_tables(generated, last, real, Ground.of(CENTRES, Cell()), scenarios)
    for rows in tables.values():
        assert sum(row["generated_trips"] for row in rows.values()) == len(generated)
        assert sum(row["real_trips"] for row in rows.values()) == len(real)
