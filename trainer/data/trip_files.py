"""Reads `train.csv`, `val.csv` and `test.csv`, checks every trip against the road map, and counts what it drops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from trainer.data.roadmap import RoadMap, csv_rows
from trainer.data.trip_text import parse_all_ids, parse_all_times, parse_ids, parse_times
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, BadLine

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]  # `map`, or one that works elsewhere; in order
Rows = list[tuple[int, dict[str, str]]]  # with their lines
CHUNK = 2000  # trips read and checked at once: bounds memory, and one bad trip slows down its chunk only


@dataclass
class Problems:
    """What is wrong with the trips of a file: the first bad trip ends reading, or all are counted and dropped."""

    file: Path
    skip: bool
    hint: str = " (--skip-bad drops such trips)"
    dropped: Counter[str] = field(default_factory=Counter)

    def report(self, kind: str, line: int, value: object) -> None:
        """Raises BadLine unless bad trips are to be skipped."""
        if not self.skip:
            raise BadLine(self.file, line, f"{kind}{self.hint}", value)
        self.dropped[kind] += 1


@dataclass(frozen=True)
class RawTrips:
    """Trips as read: lists of equal length, of roads that need not be there, with the lines that they come from.

    Ids stay 64 bits wide until they are known to be roads: a huge one must not wrap into a good one.
    """

    trips: Trips
    lines: Ints

    @classmethod
    def of(cls, roads: Ints, times: Ints, counts: Ints, lines: Ints) -> RawTrips:
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(Trips(roads, times, offsets), lines)  # type: ignore[arg-type]

    def select(self, good: Ints) -> Trips:
        """The given trips, all of whose ids are roads."""
        kept = self.trips if len(good) == len(self.trips) else self.trips.select(good)
        return Trips(kept.roads.astype(np.int32), kept.times, kept.offsets)

    def that_follow(self, road_map: RoadMap, relations: Ints, problems: Problems) -> Ints:
        """Which trips follow the road map, with its `relation_keys`, forward in time. Others are reported."""
        trips, lines = self.trips, self.lines
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
        return np.flatnonzero(good)


def read_trips(file: Path, road_map: RoadMap, skip_bad: bool, spread: Map = map) -> tuple[Trips, Counter[str]]:
    """All good trips of a file and how many of each kind were dropped. Raises BadInput or BadLine.

    `spread` checks the chunks.
    """
    problems = Problems(file, skip_bad)
    rows = csv_rows(file, ("rid_list", "time_list"), problems.report)
    chunks = iter(lambda: list(islice(rows, CHUNK)), [])
    parts: list[Trips] = []
    with tqdm(desc=f"read {file.name}", unit=" trips", disable=None, leave=False) as bar:
        check = partial(_checked, road_map, road_map.relation_keys(), file, skip_bad)
        for good, dropped in spread(check, chunks):
            parts.append(good)
            problems.dropped.update(dropped)
            bar.update(len(good) + dropped.total())
    trips = _join(parts)
    if not len(trips):
        raise BadInput(f"{file}: holds no {'usable ' if problems.dropped else ''}trip")
    return trips, problems.dropped


def _checked(road_map: RoadMap, relations: Ints, file: Path, skip_bad: bool, chunk: Rows) -> tuple[Trips, Counter[str]]:
    problems = Problems(file, skip_bad)
    found = _parse(chunk, problems)
    return found.select(found.that_follow(road_map, relations, problems)), problems.dropped


def _join(parts: list[Trips]) -> Trips:
    if not parts:
        return Trips(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(1, np.int64))
    lengths = np.concatenate([part.lengths for part in parts])
    return Trips(
        np.concatenate([part.roads for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


def _parse(rows: Rows, problems: Problems) -> RawTrips:
    """All rows at once where they are plainly right, else one by one, to find what is wrong with which."""
    found_ids = parse_all_ids([row["rid_list"] for _, row in rows])
    found_times = parse_all_times([row["time_list"] for _, row in rows])
    if found_ids and found_times and (found_ids[1] == found_times[1]).all() and (found_ids[1] >= 2).all():
        lines = np.array([line for line, _ in rows], np.int64)
        return RawTrips.of(found_ids[0], found_times[0], found_ids[1], lines)
    return _parse_one_by_one(rows, problems)


def _parse_one_by_one(rows: Rows, problems: Problems) -> RawTrips:
    roads: list[Ints] = []
    times: list[Ints] = []
    lines: list[int] = []
    for line, row in rows:
        ids = parse_ids(row["rid_list"])
        stamps = parse_times(row["time_list"])
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
    all_roads = np.concatenate(roads) if roads else np.zeros(0, np.int64)
    all_times = np.concatenate(times) if times else np.zeros(0, np.int64)
    counts = np.array([len(ids) for ids in roads], np.int64)
    return RawTrips.of(all_roads, all_times, counts, np.asarray(lines, np.int64))
