"""Generated trips read back, and what is said of bad ones."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.datasets import road_map_of
from trainer.data.roadmap import RoadMap
from trainer.errors import BadInput, BadLine
from trainer.generate.reading import about, check_made_by, read_generated

HEADER = "destination_road_id,gene_trace_road_id,gene_trace_datetime"
T0, T1, T2 = "2008-05-18T03:03:58Z", "2008-05-18T03:04:08Z", "2008-05-18T03:04:28Z"
START = 1_211_079_838


@pytest.fixture(scope="module")
def road_map() -> RoadMap:
    """Ten roads in a row, each of which leads to the next one."""
    lines = [[(10.0 + i / 1000, 50.0), (10.0 + (i + 1) / 1000, 50.0)] for i in range(10)]
    return road_map_of(lines, [(i, i + 1) for i in range(9)])[0]


def row(roads: Sequence[int], times: Sequence[str], destination: int = 5) -> str:
    stamps = json.dumps(list(times)).replace('"', '""')
    return f'{destination},"{json.dumps(list(roads))}","{stamps}"'


GOOD = row([1], [T0])


def write(file: Path, *rows: str) -> Path:
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    return file


def test_read_back(tmp_path: Path, road_map: RoadMap) -> None:
    file = write(tmp_path / "trips.csv", row([3, 4, 5], [T0, T1, T2]), row([1], [T0], 9))
    found = read_generated(file, road_map)
    assert found.destinations.tolist() == [5, 9]
    assert found.lines.tolist() == [2, 3]
    assert found.trips.roads_of(0).tolist() == [3, 4, 5]
    assert found.trips.times_of(0).tolist() == [START, START + 10, START + 30]
    assert found.trips.roads_of(1).tolist() == [1]
    assert not found.dropped


BAD = [
    (f'5,"[1, 2]","[""{T0}""]"', "roads and times differ in number", "2 roads, 1 times"),
    ('5,"[]","[]"', "a trip needs one road or more", "[]"),
    (f'5,"1, 2","[""{T0}"", ""{T1}""]"', "gene_trace_road_id is not a JSON list of road ids", "1, 2"),
    (f'5,"[1, 2.0]","[""{T0}"", ""{T1}""]"', "gene_trace_road_id is not a JSON list of road ids", "[1, 2.0]"),
    (f'5,"[true, 2]","[""{T0}"", ""{T1}""]"', "gene_trace_road_id is not a JSON list of road ids", "[true, 2]"),
    (f'5,"{"[" * 9000}","[""{T0}"", ""{T1}""]"', "gene_trace_road_id is not a JSON list of road ids", "[[["),
    ('5,"[1, 2]","[1, 2]"', "gene_trace_datetime is not a JSON list of times", "[1, 2]"),
    (f'5,"[1, 2]","[""{T0}"", ""noon""]"', "gene_trace_datetime is not YYYY-MM-DDTHH:MM:SSZ", "noon"),
    (f'5,"[1, 2]","[""{T0},{T1}"", ""{T1}""]"', "gene_trace_datetime is not YYYY-MM-DDTHH:MM:SSZ", f"{T0},{T1}"),
    (f'5,"[1, 2]","[""{T0}"", "" {T1}""]"', "gene_trace_datetime is not YYYY-MM-DDTHH:MM:SSZ", f'["{T0}'),
    (f'5,"[1, 2]","[""{T1}"", ""{T0}""]"', "time goes back", f"{T1} -> {T0}"),
    (f'5,"[9, 10]","[""{T0}"", ""{T1}""]"', "unknown road id (roadmap.geo has 0..9)", "10"),
    (f'5,"[{"9" * 30}]","[""{T0}""]"', "unknown road id (roadmap.geo has 0..9)", "9" * 30),
    (f'5,"[-1, 1]","[""{T0}"", ""{T1}""]"', "unknown road id (roadmap.geo has 0..9)", "-1"),
    (f'5,"[1, 3]","[""{T0}"", ""{T1}""]"', "step is not in roadmap.rel", "1 -> 3"),
    (f'5,"[2, 1]","[""{T0}"", ""{T1}""]"', "step is not in roadmap.rel", "2 -> 1"),
    (f'10,"[1]","[""{T0}""]"', "destination_road_id is not a road (roadmap.geo has 0..9)", "10"),
    (f'{"9" * 30},"[1]","[""{T0}""]"', "destination_road_id is not a road (roadmap.geo has 0..9)", "9" * 30),
    (f'home,"[1]","[""{T0}""]"', "destination_road_id is not a road (roadmap.geo has 0..9)", "home"),
    ('5,"[1]"', "too few fields", "5,[1]"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "kind", "value"), BAD)
def test_a_bad_row_is_named_or_skipped_and_counted(
    bad: str, kind: str, value: str, tmp_path: Path, road_map: RoadMap
) -> None:
    file = write(tmp_path / "trips.csv", GOOD, bad, row([2], [T1], 7))
    with pytest.raises(BadLine) as caught:
        read_generated(file, road_map)
    assert str(caught.value).startswith(f"{file}:3: {kind} (--skip-bad drops such trips): '{value}")
    found = read_generated(file, road_map, skip_bad=True)
    assert found.dropped == {kind: 1}
    assert found.destinations.tolist() == [5, 7]
    assert found.lines.tolist() == [2, 4]
    assert found.trips.roads.tolist() == [1, 2]


def test_all_kinds_are_counted_apart(tmp_path: Path, road_map: RoadMap) -> None:
    file = write(tmp_path / "trips.csv", *(bad for bad, _, _ in BAD), GOOD)
    dropped = read_generated(file, road_map, skip_bad=True).dropped
    assert sum(dropped.values()) == len(BAD)
    assert dropped["unknown road id (roadmap.geo has 0..9)"] == 3
    assert dropped["step is not in roadmap.rel"] == 2


def test_bad_files(tmp_path: Path, road_map: RoadMap) -> None:
    with pytest.raises(BadInput, match=r"trips\.csv: no such file$"):
        read_generated(tmp_path / "trips.csv", road_map)
    for content, said in ((f"{HEADER}\n", "holds no trip"), ("a\n1\n", "missing column"), ("", "missing column")):
        (tmp_path / "trips.csv").write_text(content)
        with pytest.raises(BadInput, match=said):
            read_generated(tmp_path / "trips.csv", road_map)
    write(tmp_path / "trips.csv", "5,[],[]")
    with pytest.raises(BadInput, match="holds no usable trip"):
        read_generated(tmp_path / "trips.csv", road_map, skip_bad=True)


def test_trips_of_another_student_or_other_data_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    check_made_by(file, "m" * 64, "d" * 64)  # nothing is known of them
    file.with_suffix(".json").write_text(json.dumps({"model_digest": "m" * 64, "data_fingerprint": "d" * 64}))
    check_made_by(file, "m" * 64, "d" * 64)
    with pytest.raises(BadInput, match=r"trips\.csv: was generated by another student \(mmmmmmmmmmmmmmmm\)"):
        check_made_by(file, "n" * 64, "d" * 64)
    with pytest.raises(BadInput, match=r"trips\.csv: was generated on other data \(dddddddddddddddd\)"):
        check_made_by(file, "m" * 64, "e" * 64)


@pytest.mark.parametrize(("content", "said"), [("{", "not readable as JSON"), ("[1]", "not a JSON object")])
def test_a_broken_description_is_said(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "trips.json").write_text(content)
    with pytest.raises(BadInput, match=said) as caught:
        about(tmp_path / "trips.csv")
    assert str(caught.value).startswith(f"{tmp_path / 'trips.json'}: ")


def test_ten_thousand_trips_are_read_in_seconds(tmp_path: Path, road_map: RoadMap) -> None:
    stamps = [f"{t}Z" for t in (np.arange(30) + START).astype("datetime64[s]").astype(str)]
    file = write(tmp_path / "trips.csv", *[row([*range(9)], stamps[:9])] * 10_000)
    begun = time.process_time()
    assert len(read_generated(file, road_map).trips) == 10_000
    assert time.process_time() - begun < 5
