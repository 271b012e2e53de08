"""The invented city: files as HOSER data have them, a network one can drive, demand and routes that look like trips."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from typer.testing import CliRunner

from trainer.data.sample_city import sample_city_command, write_sample_city
from trainer.data.sample_routes import turn_seconds
from trainer.errors import BadInput

FILES = ("roadmap.geo", "roadmap.rel", "train.csv", "val.csv", "test.csv")


@dataclass(frozen=True)
class City:
    """A city as read with plain Python from its files."""

    geo: list[dict[str, str]]
    lines: list[list[list[float]]]
    relations: list[tuple[int, int]]
    splits: dict[str, list[tuple[list[int], list[int]]]]  # (roads, seconds) of each trip

    @property
    def trips(self) -> list[tuple[list[int], list[int]]]:
        return [trip for name in ("train", "val", "test") for trip in self.splits[name]]


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _trip(row: dict[str, str]) -> tuple[list[int], list[int]]:
    stamps = [np.datetime64(stamp.removesuffix("Z"), "s") for stamp in row["time_list"].split(",")]
    return json.loads(row["rid_list"]), [int(stamp.astype(np.int64)) for stamp in stamps]


def _read(folder: Path) -> City:
    geo = _rows(folder / "roadmap.geo")
    return City(
        geo,
        [json.loads(row["coordinates"]) for row in geo],
        [(int(row["origin_id"]), int(row["destination_id"])) for row in _rows(folder / "roadmap.rel")],
        {name: [_trip(row) for row in _rows(folder / f"{name}.csv")] for name in ("train", "val", "test")},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cities") / "city"
    write_sample_city(folder, roads=600, trips=1500, seed=3)
    return folder


@pytest.fixture(scope="module")
def city(folder: Path) -> City:
    return _read(folder)


def _bytes(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_the_same_seed_makes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_sample_city(tmp_path / "again", roads=600, trips=1500, seed=3)
    assert _bytes(tmp_path / "again") == _bytes(folder)


def test_another_seed_makes_another_city(folder: Path, tmp_path: Path) -> None:
    write_sample_city(tmp_path / "other", roads=600, trips=1500, seed=4)
    assert all(a != b for a, b in zip(_bytes(tmp_path / "other"), _bytes(folder), strict=True))


def test_files_have_the_columns_and_looks_of_real_data(folder: Path, core_data: Path) -> None:
    for name in FILES:
        ours = (folder / name).read_text().splitlines()
        theirs = (core_data / name).read_text().splitlines()
        assert ours[0] == theirs[0]
        # The same characters apart from digits and letters, e.g. "[1, 2]" with a blank and "...Z,...Z" without.
        assert {c for c in ours[1] if not c.isalnum()} <= {c for c in theirs[1] if not c.isalnum()}


def test_folder_holds_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["city"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("roads", [50, 51, 77, 130, 1000])
def test_road_count_is_near_and_network_is_connected(roads: int, seed: int, tmp_path: Path) -> None:
    summary = write_sample_city(tmp_path / "c", roads=roads, trips=10, seed=seed)
    city = _read(tmp_path / "c")
    assert abs(summary.roads - roads) <= 0.05 * roads
    assert summary.roads == len(city.geo)
    origins, destinations = np.array(city.relations).T
    graph = coo_array((np.ones(len(origins)), (origins, destinations)), (summary.roads, summary.roads))
    assert connected_components(graph, directed=True, connection="strong")[0] == 1
    assert len(city.trips) == 10


def test_geo_rows(city: City) -> None:
    assert [row["geo_id"] for row in city.geo] == [str(i) for i in range(len(city.geo))]
    assert {"primary", "secondary", "tertiary", "residential"} <= {row["highway"] for row in city.geo}
    points = np.array([len(line) for line in city.lines])
    assert points.min() == 2
    assert points.max() > 4
    for row, line in zip(city.geo, city.lines, strict=True):
        lng, lat = np.radians(np.array(line)).T
        a = np.sin(np.diff(lat) / 2) ** 2 + np.cos(lat[:-1]) * np.cos(lat[1:]) * np.sin(np.diff(lng) / 2) ** 2
        assert float(row["length"]) == pytest.approx((2 * 6371008.8 * np.arcsin(np.sqrt(a))).sum(), abs=1e-3)


def test_two_way_streets_are_two_roads_and_one_way_streets_one(city: City) -> None:
    known = {json.dumps(line) for line in city.lines}
    assert len(known) == len(city.lines)
    one_way = [row["oneway"] == "1" for row in city.geo]
    assert one_way == [json.dumps(line[::-1]) not in known for line in city.lines]
    assert 0.05 < np.mean(one_way) < 0.6


def test_relations_share_the_exact_coordinate_and_are_all_there_are(city: City) -> None:
    starting: dict[str, list[int]] = {}
    for road, line in enumerate(city.lines):
        starting.setdefault(json.dumps(line[0]), []).append(road)
    expected = []
    for road, line in enumerate(city.lines):
        followers = starting[json.dumps(line[-1])]
        onward = [follower for follower in followers if city.lines[follower] != line[::-1]]
        expected += [(road, follower) for follower in (onward or followers)]
    assert city.relations == expected


def test_junction_ids_agree_with_coordinates(city: City) -> None:
    place: dict[str, str] = {}
    for row, line in zip(city.geo, city.lines, strict=True):
        assert place.setdefault(row["u"], json.dumps(line[0])) == json.dumps(line[0])
        assert place.setdefault(row["v"], json.dumps(line[-1])) == json.dumps(line[-1])
    assert len(set(place.values())) == len(place)
    assert sorted(map(int, place)) == list(range(len(place)))


def test_trips_follow_relations_and_never_pass_a_road_twice(city: City) -> None:
    relations = set(city.relations)
    for roads, _ in city.trips:
        assert set(pairwise(roads)) <= relations
        assert len(set(roads)) == len(roads)
    lengths = [len(roads) for roads, _ in city.trips]
    assert min(lengths) >= 5
    assert max(lengths) <= 64
    assert 8 <= np.median(lengths) <= 30


def test_times_go_forward_at_the_speed_of_cars(city: City) -> None:
    metres = [float(row["length"]) for row in city.geo]
    for roads, seconds in city.trips:
        assert len(seconds) == len(roads)
        assert min(np.diff(seconds)) >= 1
    speed = [sum(metres[r] for r in roads[:-1]) / (s[-1] - s[0]) for roads, s in city.trips]
    assert 4 < np.median(speed) < 15  # metres per second


def test_splits_are_by_start_time(city: City) -> None:
    assert [len(city.splits[name]) for name in ("train", "val", "test")] == [1050, 150, 300]
    starts = [seconds[0] for _, seconds in city.trips]
    assert starts == sorted(starts)
    assert (starts[-1] - starts[0]) > 14 * 86_400


def test_demand_has_rush_hours_and_hot_spots(city: City) -> None:
    hours = Counter(seconds[0] // 3600 % 24 for _, seconds in city.trips)
    assert min(hours[h] for h in (17, 18, 19)) > 3 * max(hours[h] for h in (3, 4))
    ends = Counter(roads[-1] for roads, _ in city.trips)
    busiest = sum(count for _, count in ends.most_common(len(city.geo) // 10))
    assert busiest > 2.5 * 0.1 * len(city.trips)  # a tenth of the roads gets far more than its share


def test_morning_and_night_trips_end_elsewhere(city: City) -> None:
    def ends(hours: range) -> np.ndarray:
        chosen = [roads[-1] for roads, seconds in city.trips if seconds[0] // 3600 % 24 in hours]
        middles = np.array([np.mean(city.lines[road], axis=0) for road in chosen])
        histogram = np.histogram2d(*middles.T, bins=6, range=np.array([middle_low, middle_high]).T)[0]
        return histogram / histogram.sum()

    every = np.array([np.mean(line, axis=0) for line in city.lines])
    middle_low, middle_high = every.min(axis=0), every.max(axis=0)
    half = (ends(range(7, 10)), ends(range(19, 23)))
    assert np.abs(half[0] - half[1]).sum() / 2 > 0.2


def test_routes_vary_between_the_same_places(tmp_path: Path) -> None:
    write_sample_city(tmp_path / "c", roads=60, trips=3000, seed=0)
    paths: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for roads, _ in _read(tmp_path / "c").trips:
        paths.setdefault((roads[0], roads[-1]), set()).add(tuple(roads))
    assert max(len(found) for found in paths.values()) > 2


@pytest.mark.parametrize(
    ("degrees", "seconds"), [(0, 1.0), (30, 1.0), (90, 8.0), (-90, 4.0), (180, 40.0), (-170, 40.0), (359, 1.0)]
)
def test_turns_cost_by_side(degrees: float, seconds: float) -> None:
    assert turn_seconds(np.array([2.0]), np.array([2.0 + np.radians(degrees)])) == [seconds]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"roads": 49}, "--roads 49: .* 50 to 1000000 roads"),
        ({"roads": 10**10}, "--roads 10000000000: "),
        ({"trips": 9}, "--trips 9: .* 10 to 10000000 trips"),
        ({"trips": 10**10}, "--trips 10000000000: "),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_bad_arguments(arguments: dict[str, int], named: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=named):
        write_sample_city(tmp_path / "c", **arguments)
    assert not list(tmp_path.iterdir())


def test_never_writes_over_anything(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(BadInput, match="is not empty"):
        write_sample_city(tmp_path, roads=50, trips=10)
    with pytest.raises(BadInput, match="is a file"):
        write_sample_city(tmp_path / "mine", roads=50, trips=10)
    with pytest.raises(BadInput, match="cannot be made"):
        write_sample_city(tmp_path / "mine" / "c", roads=50, trips=10)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.data.sample_city.make_trips", fail)
    with pytest.raises(KeyboardInterrupt):
        write_sample_city(tmp_path / "c", roads=50, trips=10)
    assert not list(tmp_path.iterdir())


def test_the_next_run_takes_away_what_a_killed_one_left(tmp_path: Path) -> None:
    words = ["sample-city", "--out", str(tmp_path / "c"), "--roads", "20000"]
    killed = subprocess.Popen([sys.executable, "-m", "trainer", *words])
    deadline = time.monotonic() + 100
    while not list(tmp_path.iterdir()):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    assert killed.wait(100) != 0
    assert [path.name for path in tmp_path.iterdir()] == [".c.partial"]
    write_sample_city(tmp_path / "c", roads=50, trips=10)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == sorted(FILES)


def test_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").mkdir()
    monkeypatch.chdir(tmp_path / "c")
    write_sample_city(Path(), roads=50, trips=10)
    assert len(_read(tmp_path / "c").trips) == 10


def test_an_empty_folder_is_filled_where_it_is(tmp_path: Path) -> None:
    """It may be the mount point of a volume; what a killed run left there is no hindrance."""
    (tmp_path / ".partial").mkdir()
    inode = tmp_path.stat().st_ino
    write_sample_city(tmp_path, roads=50, trips=10)
    assert tmp_path.stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_command_ends_with_one_line(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(sample_city_command)
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(
        app, ["--out", str(tmp_path / "empty"), "--roads", "60", "--trips", "20", "--seed", "1"]
    )
    assert result.exit_code == 0, result.output
    assert len(result.stdout.strip().splitlines()) == 1
    assert "60 roads" in result.stdout
    assert "20 trips" in result.stdout
    assert len(_read(tmp_path / "empty").trips) == 20
