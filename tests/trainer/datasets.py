"""Small data folders in HOSER format, and the real command line on them."""

from __future__ import annotations

import atexit
import contextlib
import csv
import io
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np

from trainer.__main__ import main
from trainer.data.roadmap import RoadMap, read_road_map
from trainer.data.sample_city import write_sample_city
from trainer.data.trips import Trips

Polyline = Sequence[tuple[float, float]]
Relation = tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str


def trainer(*arguments: str | Path) -> Outcome:
    """`trainer ARGUMENTS` through its entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    words = ["trainer", *map(str, arguments)]
    try:
        with patch.object(sys, "argv", words), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = _status_of(main)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(status, out.getvalue(), err.getvalue())


def _status_of(run: Callable[[], None]) -> int:
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def refused(outcome: Outcome, *words: str, status: int = 2) -> str:
    """The one line that says what was wrong; it must hold all words."""
    assert outcome.status == status, outcome
    lines = [line for line in outcome.err.splitlines() if not line.startswith("trainer: note:")]
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("trainer: error: ")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in lines[0], lines[0]
    assert outcome.out == ""
    return lines[0]


def small_city(folder: Path, roads: int = 120, trips: int = 60, seed: int = 1) -> Path:
    """A fresh copy of a sample city at `folder`."""
    return Path(shutil.copytree(_made(roads, trips, seed), folder))


@cache
def _made(roads: int, trips: int, seed: int) -> Path:
    scratch = Path(tempfile.mkdtemp(prefix="city-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    write_sample_city(scratch / "city", roads=roads, trips=trips, seed=seed)
    return scratch / "city"


def files_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and modification time (ns) of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def set_field(file: Path, row: int, column: str, value: str) -> int:
    """Changes one field of a CSV file; returns the line that it stands in."""
    rows = rows_of(file)
    rows[row][column] = value
    _write_rows(file, rows)
    return row + 2


def drop_column(file: Path, column: str) -> None:
    rows = rows_of(file)
    for row in rows:
        del row[column]
    _write_rows(file, rows)


def _write_rows(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_map(
    folder: Path,
    polylines: Sequence[Polyline],
    relations: Sequence[Relation],
    highways: Sequence[str] | None = None,
    lengths: Sequence[float] | None = None,
) -> None:
    """`roadmap.geo` and `roadmap.rel` with the given content and nothing else."""
    with (folder / "roadmap.geo").open("w", newline="") as stream:
        geo = csv.writer(stream)
        geo.writerow(["geo_id", "coordinates", "highway", "length"])
        for road, line in enumerate(polylines):
            highway = highways[road] if highways else "residential"
            geo.writerow([road, json.dumps(list(line)), highway, lengths[road] if lengths else 100.0])
    with (folder / "roadmap.rel").open("w", newline="") as stream:
        rel = csv.writer(stream)
        rel.writerow(["origin_id", "destination_id"])
        rel.writerows(relations)


def road_map_of(
    polylines: Sequence[Polyline],
    relations: Sequence[Relation],
    highways: Sequence[str] | None = None,
    lengths: Sequence[float] | None = None,
) -> tuple[RoadMap, tuple[str, ...]]:
    """The road map and classes that are read from such files."""
    with tempfile.TemporaryDirectory() as folder:
        write_map(Path(folder), polylines, relations, highways, lengths)
        return read_road_map(Path(folder))


def random_map(rng: np.random.Generator, roads: int, relations: int) -> tuple[RoadMap, list[Polyline], list[Relation]]:
    """Roads of 2 to 5 points that share ends now and then, and relations at random; some roads are dead ends."""
    places = np.round(rng.uniform((-122.45, 37.75), (-122.38, 37.80), (max(roads // 2, 2), 2)), 6)
    lines: list[Polyline] = []
    for _ in range(roads):
        inner = np.round(rng.uniform((-122.45, 37.75), (-122.38, 37.80), (int(rng.integers(0, 4)), 2)), 6)
        ends = places[rng.integers(0, len(places), 2)]
        lines.append([(float(x), float(y)) for x, y in np.concatenate([ends[:1], inner, ends[1:]])])
    pairs = [(int(a), int(b)) for a, b in rng.integers(0, roads, (relations, 2))]
    return road_map_of(lines, pairs)[0], lines, pairs


def trips_of(road_lists: Sequence[Sequence[int]], time_lists: Sequence[Sequence[int]]) -> Trips:
    """Ragged arrays of lists."""
    return Trips(
        np.concatenate([np.asarray(roads, np.int32) for roads in road_lists]),
        np.concatenate([np.asarray(times, np.int64) for times in time_lists]),
        np.concatenate([[0], np.cumsum([len(roads) for roads in road_lists])]),
    )


def random_walks(
    rng: np.random.Generator, road_map: RoadMap, trips: int, longest: int, start: int = 1_211_000_000
) -> Trips:
    """Trips of 2 to `longest` roads along the relations; times go forward by up to 15 minutes a step."""
    origins = np.flatnonzero(np.diff(road_map.successor_offsets) > 0)
    road_lists, time_lists = [], []
    for _ in range(trips):
        roads = [int(rng.choice(origins))]
        for _ in range(int(rng.integers(1, longest))):
            low, high = road_map.successor_offsets[roads[-1] : roads[-1] + 2]
            if low == high:
                break
            roads.append(int(road_map.successors[rng.integers(low, high)]))
        begin = start + int(rng.integers(0, 14 * 86_400))
        road_lists.append(roads)
        time_lists.append([begin, *(begin + np.cumsum(rng.integers(0, 900, len(roads) - 1))).tolist()])
    return trips_of(road_lists, time_lists)
