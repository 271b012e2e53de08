"""Trips in memory and as read from CSV."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import road_map_of, trips_of
from trainer.data import trip_files
from trainer.data.roadmap import RoadMap
from trainer.data.trip_files import read_trips
from trainer.data.trip_text import format_times, parse_all_ids, parse_all_times, parse_ids, parse_time, parse_times
from trainer.errors import BadInput, BadLine

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T0, T1, T2 = (f"2008-05-17T03:03:{second}Z" for second in ("00", "20", "40"))
GOOD = f'"[0, 1, 2]","{T0},{T1},{T2}"'

# A bad row, the kind that it is counted as, and what the message shows.
BAD_ROWS = [
    (f'"[0, x]","{T0},{T1}"', "rid_list is not a list of road ids", "[0, x]"),
    (f'"[0, 1.5]","{T0},{T1}"', "rid_list is not a list of road ids", "[0, 1.5]"),
    (f'"","{T0},{T1}"', "rid_list is not a list of road ids", "''"),
    (f'"[]","{T0},{T1}"', "rid_list is not a list of road ids", "[]"),
    (f'"[0, 99999999999999999999]","{T0},{T1}"', "rid_list is not a list of road ids", "99999999999999999999"),
    ('"[0, 1]",""', "time_list is not a list of YYYY-MM-DDTHH:MM:SSZ", "''"),
    (f'"[0, 1]","{T0},2008-02-30T00:00:00Z"', "time_list is not a list of YYYY-MM-DDTHH:MM:SSZ", "2008-02-30"),
    (f'"[0, 1]","{T0},2008-05-17 03:03:20"', "time_list is not a list of YYYY-MM-DDTHH:MM:SSZ", "17 03"),
    (f'"[0, 1]","{T0},2008-05-17T24:00:00Z"', "time_list is not a list of YYYY-MM-DDTHH:MM:SSZ", "T24"),
    (f'"[0, 1, 2]","{T0},{T1}"', "rid_list and time_list differ in length", "3 roads, 2 times"),
    (f'"[0]","{T0}"', "a trip needs two roads or more", "[0]"),
    (f'"[0, 4]","{T0},{T1}"', "unknown road id (roadmap.geo has 0..3)", "'4'"),
    (f'"[-1, 1]","{T0},{T1}"', "unknown road id (roadmap.geo has 0..3)", "'-1'"),
    (f'"[0, 4294967297]","{T0},{T1}"', "unknown road id (roadmap.geo has 0..3)", "4294967297"),
    (f'"[0, 2]","{T0},{T1}"', "step is not in roadmap.rel", "0 -> 2"),
    (f'"[0, 1, 2]","{T0},{T2},{T1}"', "time goes back", "03:03:40Z -> 2008-05-17T03:03:20Z"),
    ('"[0, 1]"', "too few fields", "[0, 1]"),
]


@pytest.fixture
def road_map() -> RoadMap:
    return road_map_of([[(0.0, 0.0), (1.0, 1.0)]] * 4, [(0, 1), (1, 2), (2, 0), (0, 3)])[0]


def write(file: Path, *rows: str) -> Path:
    file.write_text("\n".join(["rid_list,time_list", *rows]) + "\n")
    return file


@pytest.mark.parametrize(("row", "kind", "shown"), BAD_ROWS)
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_each_kind_of_bad_trip(
    row: str, kind: str, shown: str, chunk: int, road_map: RoadMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trip_files, "CHUNK", chunk)
    file = write(tmp_path / "train.csv", GOOD, row, GOOD)
    with pytest.raises(BadLine) as caught:
        read_trips(file, road_map, skip_bad=False)
    message = str(caught.value)
    assert message.startswith(f"{file}:3: {kind}")
    assert shown in message
    assert "\n" not in message
    trips, dropped = read_trips(file, road_map, skip_bad=True)
    assert dropped == {kind: 1}
    assert [trips.roads_of(i).tolist() for i in range(len(trips))] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_all_kinds_at_once_are_counted_and_dropped(
    chunk: int, road_map: RoadMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trip_files, "CHUNK", chunk)
    rows = [text for row, _, _ in BAD_ROWS for text in (row, GOOD)]
    trips, dropped = read_trips(write(tmp_path / "t.csv", *rows), road_map, skip_bad=True)
    assert dropped == Counter(kind for _, kind, _ in BAD_ROWS)
    assert trips.roads.tolist() == [0, 1, 2] * len(BAD_ROWS)
    assert trips.offsets.tolist() == list(range(0, 3 * len(BAD_ROWS) + 1, 3))


def test_a_trip_with_two_faults_is_counted_once(road_map: RoadMap, tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", GOOD, f'"[9, 2, 1]","{T2},{T1},{T0}"')
    _, dropped = read_trips(file, road_map, skip_bad=True)
    assert sum(dropped.values()) == 1


def test_nothing_left(road_map: RoadMap, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"t\.csv: holds no trip$"):
        read_trips(write(tmp_path / "t.csv"), road_map, skip_bad=True)
    with pytest.raises(BadInput, match=r"t\.csv: holds no usable trip$"):
        read_trips(write(tmp_path / "t.csv", BAD_ROWS[0][0]), road_map, skip_bad=True)


def test_both_ways_to_write_a_list(road_map: RoadMap, tmp_path: Path) -> None:
    rows = (GOOD, f'"0,1,2","{T0},{T1},{T2}"', f'" [0,1 , 2] "," {T0},{T0},{T0} "', f'"2,0,3","{T0},{T0},{T1}"')
    trips, dropped = read_trips(write(tmp_path / "t.csv", *rows), road_map, skip_bad=False)
    assert not dropped
    assert (trips.roads.dtype, trips.times.dtype, trips.offsets.dtype) == (np.int32, np.int64, np.int64)
    start = parse_time(T0)
    assert start is not None
    assert [trips.roads_of(i).tolist() for i in range(4)] == [[0, 1, 2]] * 3 + [[2, 0, 3]]
    assert [(trips.times_of(i) - start).tolist() for i in range(4)] == [[0, 20, 40], [0, 20, 40], [0, 0, 0], [0, 0, 20]]


@settings(deadline=None, max_examples=100, database=None)
@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_times_are_seconds_since_1970_both_ways(moment: datetime) -> None:
    seconds = (moment - EPOCH) // timedelta(seconds=1)
    text = moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%dT%H:%M:%SZ")
    assert parse_time(text) == seconds
    assert format_times(np.array([seconds])) == [text]


@settings(deadline=None, max_examples=300, database=None)
@given(st.data())
def test_nothing_but_the_one_format_is_a_time(data: st.DataObject) -> None:
    characters = list(T0)
    place = data.draw(st.integers(0, len(T0) - 1))
    characters[place] = data.draw(st.sampled_from("0123456789-+:TZ., _\u0662"))
    text = "".join(characters)
    try:
        expected = (datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)
    except ValueError:
        expected = None
    if not text.isascii() or any(c in text for c in " _+"):
        expected = None  # Python is more lenient
    assert parse_time(text) == expected


moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))


@settings(deadline=None, max_examples=200, database=None)
@given(st.lists(st.lists(moments, min_size=1, max_size=4), min_size=1, max_size=4))
def test_many_times_at_once_are_those_one_by_one(lists: list[list[datetime]]) -> None:
    texts = [",".join(f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}Z" for moment in moments) for moments in lists]
    found = parse_all_times(texts)
    assert found is not None
    assert found[0].tolist() == [second for text in texts for second in parse_times(text)]  # type: ignore[union-attr]
    assert found[1].tolist() == [len(moments) for moments in lists]


@settings(deadline=None, max_examples=300, database=None)
@given(st.lists(st.sampled_from((T0, T1, "2008-02-29T23:59:59Z")), min_size=2, max_size=5), st.data())
def test_one_spoilt_time_spoils_the_lot(stamps: list[str], data: st.DataObject) -> None:
    """What the bytes let through, the strict reader does, with the same numbers."""
    characters = list(",".join(stamps))
    place = data.draw(st.integers(0, len(characters) - 1))
    characters[place] = data.draw(st.sampled_from("0123456789-+:TZ., _\u0662"))
    texts = [T2, "".join(characters), T2]
    found, strict = parse_all_times(texts), [parse_times(text) for text in texts]
    if any(each is None for each in strict):
        assert found is None
    elif found is not None:
        assert found[0].tolist() == np.concatenate(strict).tolist()  # type: ignore[arg-type]
    else:
        assert any(" " in text for text in texts)


@settings(deadline=None, max_examples=300, database=None)
@given(st.lists(st.text("0123456789,,[] -x\t", max_size=12), min_size=1, max_size=4))
def test_many_id_lists_at_once_are_those_one_by_one(texts: list[str]) -> None:
    found, strict = parse_all_ids(texts), [parse_ids(text) for text in texts]
    if found is not None:
        assert [len(each) for each in strict] == found[1].tolist()  # type: ignore[arg-type]
        assert found[0].tolist() == np.concatenate(strict).tolist()  # type: ignore[arg-type]


def test_plain_id_lists_are_taken_at_once() -> None:
    found = parse_all_ids(["[1, 2, 30]", "4,5", " [6,7] ", "2147483647"])
    assert found is not None
    assert found[0].tolist() == [1, 2, 30, 4, 5, 6, 7, 2147483647]
    assert found[1].tolist() == [3, 2, 2, 1]
    for other in ("[1, -2]", "1,,2", "1 2", "1,", "", "[]", "99999999999999999999", "2147483648", "\u0661", "1.0"):
        assert parse_all_ids(["1,2", other]) is None, other


@settings(deadline=None, max_examples=60, database=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.data())
def test_select(lengths: list[int], data: st.DataObject) -> None:
    road_lists = [list(range(10 * i, 10 * i + n)) for i, n in enumerate(lengths)]
    trips = trips_of(road_lists, [[100 * road for road in roads] for roads in road_lists])
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=10))
    found = trips.select(np.array(chosen, np.int64))
    assert len(found) == len(chosen)
    assert [found.roads_of(i).tolist() for i in range(len(found))] == [road_lists[i] for i in chosen]
    assert (found.times == 100 * found.roads).all()
    assert found.lengths.tolist() == [lengths[i] for i in chosen]
