"""Reads `train.csv`, `val.csv` and `test.csv`, checks every trip against the road map, and counts what it drops."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.data.roadmap import RoadMap, csv_rows
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, BadLine

CHUNK = 20_000  # trips read and checked at once: bounds memory
ID_LIST = re.compile(r"[0-9,\s-]*", re.ASCII)  # `int` itself would also take `1_0`, `+10` and other scripts' digits
STAMP = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
STAMP_LIST = re.compile(f"{STAMP}(?:,{STAMP})*")
STAMP_BYTES = np.dtype([("time", "S19"), ("zone_and_comma", "S2")])

Bools = NDArray[np.bool_]


@dataclass
class Problems:
    """What is wrong with the trips of a file: the first bad trip ends reading, or all are counted and dropped."""

    file: Path
    skip: bool
    dropped: Counter[str] = field(default_factory=Counter)

    def report(self, kind: str, line: int, value: object) -> None:
        """Raises BadLine unless bad trips are to be skipped."""
        if not self.skip:
            raise BadLine(self.file, line, f"{kind} (--skip-bad drops such trips)", value)
        self.dropped[kind] += 1


@dataclass(frozen=True)
class _Chunk:
    """Trips that are lists of equal length, with the lines that they come from."""

    trips: Trips
    lines: Ints


def read_trips(file: Path, road_map: RoadMap, skip_bad: bool) -> tuple[Trips, Counter[str]]:
    """All good trips of a file and how many of each kind were dropped. Raises BadInput or BadLine."""
    problems = Problems(file, skip_bad)
    relations = road_map.relation_keys()
    rows = csv_rows(file, ("rid_list", "time_list"), problems.report)
    parts: list[Trips] = []
    with tqdm(desc=f"read {file.name}", unit=" trips", disable=None, leave=False) as bar:
        while chunk := list(islice(rows, CHUNK)):
            parts.append(_check(_parse(chunk, problems), road_map, relations, problems))
            bar.update(len(chunk))
    trips = _join(parts)
    if not len(trips):
        raise BadInput(f"{file}: holds no {'usable ' if problems.dropped else ''}trip")
    return trips, problems.dropped


def _join(parts: list[Trips]) -> Trips:
    if not parts:
        return Trips(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(1, np.int64))
    lengths = np.concatenate([part.lengths for part in parts])
    return Trips(
        np.concatenate([part.roads for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


def _parse(rows: list[tuple[int, dict[str, str]]], problems: Problems) -> _Chunk:
    roads: list[NDArray[np.int64]] = []
    times: list[Ints] = []
    lines: list[int] = []
    for line, row in rows:
        ids = _parse_ids(row["rid_list"])
        stamps = _parse_times(row["time_list"])
        if ids is None:
            problems.report("rid_list is not a list of road ids", line, row["rid_list"])
        elif stamps is None:
            problems.report("time_list is not a list of YYYY-MM-DDTHH:MM:SSZ", line, row["time_list"])
        elif len(ids) != len(stamps):
            problems.report("rid_list and time_list differ in length", line, f"{len(ids)} roads, {len(stamps)} times")
        elif len(ids) < 2:
            problems.report("a trip needs two roads or more", line, row["rid_list"])
        else:
            roads.append(ids)
            times.append(stamps)
            lines.append(line)
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in roads], dtype=np.int64)]).astype(np.int64)
    # Ids stay 64 bits wide until they are known to be roads: a huge one must not wrap into a good one.
    all_roads = np.concatenate(roads) if roads else np.zeros(0, np.int64)
    all_times = np.concatenate(times) if times else np.zeros(0, np.int64)
    return _Chunk(Trips(all_roads, all_times, offsets), np.asarray(lines, np.int64))  # type: ignore[arg-type]


def _parse_ids(text: str) -> NDArray[np.int64] | None:
    text = text.strip().removeprefix("[").removesuffix("]")
    if not ID_LIST.fullmatch(text):
        return None
    try:
        return np.array(text.split(","), dtype=np.int64)
    except (ValueError, OverflowError):
        return None


def parse_time(text: str) -> int | None:
    """Seconds since 1970 of one time as written, or None."""
    times = _parse_times(text)
    return int(times[0]) if times is not None and len(times) == 1 else None


def format_times(seconds: Ints) -> list[str]:
    """The inverse: YYYY-MM-DDTHH:MM:SSZ."""
    return [f"{stamp}Z" for stamp in np.datetime_as_string(seconds.astype("datetime64[s]"))]


def _parse_times(text: str) -> Ints | None:
    """Strict, because a half-read date is worse than none."""
    text = text.strip()
    if not STAMP_LIST.fullmatch(text):
        return None
    stamps = np.frombuffer(f"{text},".encode(), STAMP_BYTES)["time"]
    try:
        return stamps.astype("datetime64[s]").astype(np.int64)
    except ValueError:  # no such day or hour
        return None


def _check(chunk: _Chunk, road_map: RoadMap, relations: Ints, problems: Problems) -> Trips:
    """The trips of a chunk that follow the road map, forward in time."""
    trips, lines = chunk.trips, chunk.lines
    good = np.ones(len(trips), dtype=bool)
    trip_of_point = np.repeat(np.arange(len(trips)), trips.lengths)
    known = (trips.roads >= 0) & (trips.roads < road_map.roads)
    roads = np.where(known, trips.roads, 0).astype(np.int64)
    inner = trip_of_point[1:] == trip_of_point[:-1]  # False where one trip ends and the next starts
    keys = roads[:-1] * road_map.roads + roads[1:]
    found = relations[np.minimum(np.searchsorted(relations, keys), len(relations) - 1)] == keys
    later = trips.times[1:] >= trips.times[:-1]
    for kind, bad, show in (
        (f"unknown road id (roadmap.geo has 0..{road_map.roads - 1})", ~known, lambda p: trips.roads[p]),
        (
            "step is not in roadmap.rel",
            np.append(inner & ~found, False),
            lambda p: f"{roads[p]} -> {roads[p + 1]}",
        ),
        (
            "time goes back",
            np.append(inner & ~later, False),
            lambda p: " -> ".join(f"{t}Z" for t in trips.times[p : p + 2].astype("datetime64[s]")),
        ),
    ):
        points = np.flatnonzero(bad)
        offenders, first = np.unique(trip_of_point[points], return_index=True)
        for trip, point in zip(offenders, points[first], strict=True):
            if good[trip]:
                problems.report(kind, int(lines[trip]), show(point))
                good[trip] = False
    kept = trips if good.all() else trips.select(np.flatnonzero(good))
    return Trips(kept.roads.astype(np.int32), kept.times, kept.offsets)
