"""Every kind of bad data folder through the real command line: one line, status 2, nothing written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.datasets import drop_column, files_in, refused, rows_of, set_field, small_city, trainer


@dataclass(frozen=True)
class Case:
    """A way to spoil a good folder, and the words that the message must hold."""

    spoil: Callable[[Path], object]
    words: tuple[str, ...]


def field(file: str, row: int, column: str, value: str, *words: str) -> Case:
    """One bad field; the message names file and line."""
    return Case(lambda city: set_field(city / file, row, column, value), (f"/{file}:{row + 2}: ", *words))


def without(file: str, *words: str) -> Case:
    return Case(lambda city: (city / file).unlink(), (f"/{file}: ", "no such file", *words))


def holding(file: str, content: str | bytes, *words: str) -> Case:
    """A file of other content."""
    raw = content if isinstance(content, bytes) else content.encode()
    return Case(lambda city: (city / file).write_bytes(raw), (f"/{file}", *words))


def appended(file: str, content: bytes, *words: str) -> Case:
    return Case(lambda city: (city / file).write_bytes((city / file).read_bytes() + content), (f"/{file}", *words))


def column_gone(file: str, column: str) -> Case:
    return Case(lambda city: drop_column(city / file, column), (f"/{file}:1: missing column(s) {column}: ",))


def header_only(file: str, *words: str) -> Case:
    def spoil(city: Path) -> None:
        (city / file).write_text((city / file).read_text().splitlines()[0] + "\n")

    return Case(spoil, (f"/{file}: ", *words))


def matrix(array: np.ndarray, *words: str) -> Case:
    return Case(lambda city: np.save(city / "zone_trans_mat.npy", array), ("/zone_trans_mat.npy: ", *words))


class Bomb:
    """Unpickling it would make a file."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("/tmp/hoser-distill-was-unpickled", "w")


def first_time(city: Path, split: str, row: int, change: Callable[[list[str]], list[str]]) -> None:
    times = rows_of(city / f"{split}.csv")[row]["time_list"].split(",")
    set_field(city / f"{split}.csv", row, "time_list", ",".join(change(times)))


CASES = {
    # roadmap.geo
    "geo missing": without("roadmap.geo", "a HOSER data folder needs roadmap.geo, roadmap.rel"),
    "geo empty": holding("roadmap.geo", "", ":1: missing column(s) coordinates, highway, length"),
    "geo without rows": header_only("roadmap.geo", "holds no road"),
    "geo without coordinates": column_gone("roadmap.geo", "coordinates"),
    "geo without highway": column_gone("roadmap.geo", "highway"),
    "geo without length": column_gone("roadmap.geo", "length"),
    "geo_id is not the position": field("roadmap.geo", 7, "geo_id", "8", "geo_id must be the row position 7: '8'"),
    "geo_id is no number": field("roadmap.geo", 7, "geo_id", "r7", "geo_id must be the row position 7: 'r7'"),
    "coordinates are Python": field("roadmap.geo", 3, "coordinates", "[(1,2),(3,4)]", "are not JSON", "(1,2)"),
    "coordinates are code": field("roadmap.geo", 3, "coordinates", "__import__('os').getcwd()", "are not JSON"),
    "coordinates are empty": field("roadmap.geo", 3, "coordinates", "", "are not JSON", "''"),
    "coordinates are texts": field("roadmap.geo", 3, "coordinates", '[["1","2"],["3","4"]]', "are not JSON"),
    "coordinates are no numbers": field("roadmap.geo", 3, "coordinates", "[[null,2],[3,4]]", "are not JSON"),
    "coordinates are ragged": field("roadmap.geo", 3, "coordinates", "[[1,2],[3]]", "are not JSON"),
    "coordinates are nested": field("roadmap.geo", 3, "coordinates", "[" * 9000, "are not JSON", "..."),
    "coordinates are a huge number": field("roadmap.geo", 3, "coordinates", f"[[{10**400},2],[3,4]]", "are not JSON"),
    "one point only": field("roadmap.geo", 3, "coordinates", "[[1,2]]", "two or more [lng, lat] points", "[[1,2]]"),
    "three numbers a point": field("roadmap.geo", 3, "coordinates", "[[1,2,3],[4,5,6]]", "two or more [lng, lat]"),
    "coordinate NaN": field("roadmap.geo", 3, "coordinates", "[[NaN,2],[3,4]]", "are not finite", "NaN"),
    "coordinate infinite": field("roadmap.geo", 3, "coordinates", "[[1,2],[3,Infinity]]", "are not finite"),
    "coordinate overflows": field("roadmap.geo", 3, "coordinates", "[[1,2],[3,1e999]]", "are not finite"),
    "lat and lng swapped": field("roadmap.geo", 3, "coordinates", "[[39.9,116.4],[39.8,116.3]]", "must be [lng, lat]"),
    "lng beyond 180": field("roadmap.geo", 3, "coordinates", "[[181,1],[1,2]]", "must be [lng, lat] in degrees"),
    "length negative": field("roadmap.geo", 0, "length", "-3.5", "number of metres, zero or more: '-3.5'"),
    "length NaN": field("roadmap.geo", 0, "length", "nan", "number of metres", "'nan'"),
    "length no number": field("roadmap.geo", 0, "length", "12 m", "number of metres", "'12 m'"),
    "length with a break": field("roadmap.geo", 0, "length", "1_000", "number of metres", "'1_000'"),
    "length in other digits": field("roadmap.geo", 0, "length", "١٢.٥", "number of metres", "'١٢.٥'"),
    "highway a missing value": field("roadmap.geo", 9, "highway", "NaN", "highway is empty: 'NaN'"),
    "highway a list of missing values": field("roadmap.geo", 9, "highway", "['nan', 'a']", "highway is empty"),
    "highway a list of nothing": field("roadmap.geo", 9, "highway", "['unclassified', '']", "highway is empty"),
    "highway empty": field("roadmap.geo", 9, "highway", " ", "highway is empty"),
    "highway half a list": field("roadmap.geo", 9, "highway", "['a', ", "neither a class nor a list", "['a',"),
    "highway an empty list": field("roadmap.geo", 9, "highway", "[]", "neither a class nor a list"),
    "geo cut off": appended("roadmap.geo", b'120,LineString,"[[1,2],[3,4]]"\n', ":122: too few fields: '120,Line"),
    "geo not text": appended("roadmap.geo", b"\xff\xfe\n", ":122: not UTF-8 text", "xff"),
    # roadmap.rel
    "rel missing": without("roadmap.rel"),
    "rel empty": holding("roadmap.rel", "", ":1: missing column(s) origin_id, destination_id"),
    "rel without rows": header_only("roadmap.rel", "holds no relation"),
    "rel without origins": column_gone("roadmap.rel", "origin_id"),
    "rel to an unknown road": field("roadmap.rel", 4, "destination_id", "120", "unknown road id", "0..119", "'120'"),
    "rel from an unknown road": field("roadmap.rel", 4, "origin_id", "-1", "unknown road id", "'-1'"),
    "rel with text": field("roadmap.rel", 4, "origin_id", "main street", "not an integer: 'main street'"),
    "rel with fractions": field("roadmap.rel", 4, "origin_id", "1.0", "not an integer: '1.0'"),
    "rel with a break": field("roadmap.rel", 4, "origin_id", "1_0", "origin_id: road id is not an integer: '1_0'"),
    "rel with a plus": field("roadmap.rel", 4, "destination_id", "+5", "not an integer: '+5'"),
    "rel in other digits": field("roadmap.rel", 4, "destination_id", "١٢", "not an integer: '١٢'"),
    "rel of thousands of digits": field("roadmap.rel", 4, "origin_id", "1" * 9000, "not an integer: '111"),
    # trips
    "train missing": without("train.csv"),
    "val missing": without("val.csv"),
    "test missing": without("test.csv"),
    "train is a folder": Case(
        lambda city: ((city / "train.csv").unlink(), (city / "train.csv").mkdir()), ("/train.csv: no such file",)
    ),
    "val empty": holding("val.csv", "", ":1: missing column(s) rid_list, time_list"),
    "val without trips": header_only("val.csv", "holds no trip"),
    "trips without roads": column_gone("train.csv", "rid_list"),
    "trips without times": column_gone("test.csv", "time_list"),
    "trip cut off": appended("train.csv", b'42,0,42,"[1, 2\n', ":44: too few fields", "[1, 2"),
    "trips not text": appended("train.csv", b"\x80\n", ":44: not UTF-8 text"),
    "roads not integers": field("train.csv", 2, "rid_list", "[1, two]", "not a list of road ids", "two"),
    "roads are code": field("train.csv", 2, "rid_list", "[__import__('os')]", "not a list of road ids"),
    "roads with a break": field("train.csv", 2, "rid_list", "[0_5, 6]", "not a list of road ids", "0_5"),
    "roads with a plus": field("train.csv", 2, "rid_list", "[+5, 6]", "not a list of road ids", "+5"),
    "roads in other digits": field("train.csv", 2, "rid_list", "[٥, 6]", "not a list of road ids", "٥"),
    "roads with two signs": field("train.csv", 2, "rid_list", "[--5, 6]", "not a list of road ids", "--5"),
    "no roads": field("test.csv", 0, "rid_list", "[]", "not a list of road ids", "'[]'"),
    "one road": Case(
        lambda city: (
            set_field(city / "test.csv", 0, "rid_list", "[5]"),
            set_field(city / "test.csv", 0, "time_list", "2008-01-01T00:00:00Z"),
        ),
        ("/test.csv:2: a trip needs two roads or more", "[5]"),
    ),
    "lists of unequal length": Case(
        lambda city: first_time(city, "val", 3, lambda times: times[:-1]), ("/val.csv:5: ", "differ in length", "roads")
    ),
    "time that is none": Case(
        lambda city: first_time(city, "val", 3, lambda times: ["2008-13-01T00:00:00Z", *times[1:]]),
        ("/val.csv:5: time_list is not a list of YYYY-MM-DDTHH:MM:SSZ", "2008-13-01"),
    ),
    "time without Z": Case(
        lambda city: first_time(city, "val", 3, lambda times: [time.rstrip("Z") for time in times]),
        ("/val.csv:5: time_list is not a list",),
    ),
    "times that go back": Case(
        lambda city: first_time(city, "train", 1, lambda times: times[::-1]), ("/train.csv:3: time goes back", " -> ")
    ),
    "unknown road": Case(
        lambda city: set_field(
            city / "train.csv", 0, "rid_list", rows_of(city / "train.csv")[0]["rid_list"].replace("]", "7777]")
        ),
        ("/train.csv:2: unknown road id (roadmap.geo has 0..119)", "7777"),
    ),
    "step not in rel": Case(
        lambda city: set_field(
            city / "val.csv", 1, "rid_list", str([0] * len(rows_of(city / "val.csv")[1]["time_list"].split(",")))
        ),
        ("/val.csv:3: step is not in roadmap.rel", "'0 -> 0'"),
    ),
    # zones
    "zone no number": holding("road_network_partition", "0\n" * 50 + "x\n" + "0\n" * 69, ":51: zone id", "'x'"),
    "zone negative": holding("road_network_partition", "-1\n" + "0\n" * 119, ":1: zone id", "'-1'"),
    "zone too large": holding("road_network_partition", "0\n" * 119 + "120\n", ":120: zone id", "0 to 119", "'120'"),
    "zone much too large": holding("road_network_partition", "0\n" * 119 + "1" * 9000, ":120: zone id", "..."),
    "zone with a break": holding("road_network_partition", "0\n" * 119 + "1_0", ":120: zone id", "'1_0'"),
    "zones with a gap": holding("road_network_partition", "0\n\n" + "0\n" * 118, ":2: zone id", "''"),
    "too few zones": holding("road_network_partition", "0\n" * 119, "holds 119 zone ids", "has 120 roads"),
    "too many zones": holding("road_network_partition", "0\n" * 121, "holds 121 zone ids", "has 120 roads"),
    "zones empty": holding("road_network_partition", "", "holds 0 zone ids"),
    "zones not text": holding("road_network_partition", b"\xff\xff\n" * 120, ":1: zone id"),
    "matrix of another size": matrix(np.zeros((2, 2), np.int64), "has shape (2, 2), but the partition has 3 zones"),
    "matrix not square": matrix(np.zeros((3, 4), np.int64), "has shape (3, 4)"),
    "matrix of one axis": matrix(np.zeros(9, np.int64), "has shape (9,)"),
    "matrix of fractions": matrix(np.zeros((3, 3)), "must hold counts", "float64"),
    "matrix of negative counts": matrix(np.full((3, 3), -1), "must hold counts"),
    "matrix of counts that wrap": matrix(
        np.array([[0, 2**63, 0]] * 3, np.uint64) * (1 - np.eye(3, dtype=np.uint64)), "zone changes", "at most"
    ),
    "matrix of counts that overflow": matrix(2**62 * (1 - np.eye(3, dtype=np.int64)), "2.77e+19 zone changes"),
    "matrix with a diagonal": matrix(
        np.diag([0, 0, 3]), "counts changes from zone 2 to itself; the diagonal must be zero"
    ),
    "matrix of objects": matrix(np.array([[Bomb()] * 3] * 3), "not a NumPy array file"),
    "matrix a pickle": holding("zone_trans_mat.npy", pickle.dumps(Bomb()), "not a NumPy array file"),
    "matrix a zip": holding("zone_trans_mat.npy", b"PK\x03\x04 and so on", "not a NumPy array file"),
    "matrix empty": holding("zone_trans_mat.npy", b"", "not a NumPy array file"),
}


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return small_city(tmp_path / "city")


def names_and_contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (content, _) in files_in(folder).items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_prepare_refuses(case: Case, city: Path, tmp_path: Path) -> None:
    case.spoil(city)
    before = names_and_contents(city)
    line = refused(trainer("prepare", "--data", city, "--cache", tmp_path / "cache"), *case.words)
    assert line.startswith(f"trainer: error: {city}/")
    assert len(line) < 400
    assert names_and_contents(city) == before
    assert not files_in(tmp_path / "cache")
    assert not Path("/tmp/hoser-distill-was-unpickled").exists()


BAD_TRIPS = [
    "trip cut off",
    "roads not integers",
    "roads with a break",
    "roads with a plus",
    "roads in other digits",
    "roads with two signs",
    "no roads",
    "one road",
    "lists of unequal length",
    "time that is none",
    "times that go back",
    "unknown road",
    "step not in rel",
]


@pytest.mark.parametrize("name", BAD_TRIPS)
def test_skip_bad_drops_such_trips(name: str, city: Path, tmp_path: Path) -> None:
    CASES[name].spoil(city)
    outcome = trainer("prepare", "--data", city, "--cache", tmp_path / "cache", "--skip-bad")
    assert (outcome.status, outcome.err) == (0, "")
    summary, dropped = outcome.out.splitlines()
    assert dropped.startswith("dropped trips: 1 x ")
    kept = 60 if name == "trip cut off" else 59
    counts = summary.split("trips: ")[1].split("; ")[0].split(", ")
    assert sum(int(text.split()[0]) for text in counts) == kept


@pytest.mark.parametrize("name", sorted(CASES.keys() - set(BAD_TRIPS) - {"time without Z", "roads are code"}))
def test_skip_bad_is_for_trips_only(name: str, city: Path, tmp_path: Path) -> None:
    """A map, zones or whole files cannot be dropped."""
    CASES[name].spoil(city)
    words = ("prepare", "--data", city, "--cache", tmp_path / "cache", "--skip-bad")
    refused(trainer(*words), *CASES[name].words)


@pytest.mark.parametrize("command", ["tokens", "train"])
@pytest.mark.parametrize("name", ["geo missing", "step not in rel", "matrix a pickle"])
def test_other_commands_refuse_the_same(command: str, name: str, city: Path, tmp_path: Path) -> None:
    CASES[name].spoil(city)
    words = [command, "--data", city, "--cache", tmp_path / "cache", "--out", tmp_path / "out"]
    words += ["--teacher", "none"] * (command == "train")
    refused(trainer(*words), *CASES[name].words)
    assert not (tmp_path / "out").exists()


def test_no_folder(tmp_path: Path) -> None:
    for data in (tmp_path / "none", small_city(tmp_path / "city") / "train.csv"):
        refused(trainer("prepare", "--data", data, "--cache", tmp_path / "c"), f"{data}: no such folder")
        assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["coordinates are nested", "times that go back", "matrix a zip"])
def test_as_processes(name: str, city: Path, tmp_path: Path) -> None:
    """The same as a user sees it."""
    CASES[name].spoil(city)
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "prepare", "--data", city, "--cache", tmp_path / "cache"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("trainer: error: ")
    for word in CASES[name].words:
        assert word in line
