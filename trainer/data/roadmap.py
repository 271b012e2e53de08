"""Reads a HOSER road map: `roadmap.geo` (road segments) and `roadmap.rel` (which road can follow which).

R roads, P polyline points in all, E relations. A road's id is its row in `roadmap.geo`.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.errors import BadInput, BadLine

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ENDS = ("origin_id", "destination_id")
MOST_AT_A_JUNCTION = 256  # road ends at a point, successors of a road: what is made of them grows with the square
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,99}")


@dataclass(frozen=True)
class RoadMap:
    """A road network as arrays. Coordinates are (lng, lat) in degrees, lengths metres."""

    points: Floats  # [P, 2] polylines, one after the other
    point_offsets: Ints  # [R + 1] road r is points[point_offsets[r]:point_offsets[r + 1]]
    centres: Floats  # [R, 2] midpoints of the polyline's segments, weighted by segment length in degrees
    length_m: Floats  # [R]
    type_id: Ints  # [R] rank of the road's class among the sorted distinct ones
    successors: Ints  # [E] roads that can follow, road after road, in the order of the .rel rows
    successor_offsets: Ints  # [R + 1]

    @property
    def roads(self) -> int:
        return len(self.length_m)

    @property
    def first_points(self) -> Floats:
        """Where each road starts, [R, 2]."""
        return self.points[self.point_offsets[:-1]]

    @property
    def last_points(self) -> Floats:
        """Where each road ends, [R, 2]."""
        return self.points[self.point_offsets[1:] - 1]

    def relation_keys(self) -> Ints:
        """Every (origin, destination) as origin * R + destination, sorted, [E]."""
        origins = np.repeat(np.arange(self.roads), np.diff(self.successor_offsets))
        return np.sort(origins * self.roads + self.successors)

    def successor_table(self) -> tuple[Ints, Ints]:
        """Successors padded with -1, [R, max out-degree], and their counts [R]."""
        counts = np.diff(self.successor_offsets)
        width = max(int(counts.max()), 1)
        table = np.full((self.roads, width), -1, dtype=np.int64)
        table[np.arange(width) < counts[:, None]] = self.successors
        return table, counts


def read_road_map(folder: Path) -> tuple[RoadMap, tuple[str, ...]]:
    """The road map of a HOSER data folder, and its highway classes in class-id order.

    Raises BadInput or BadLine naming file, line and value.
    """
    polylines, highways, lengths = _read_geo(folder / "roadmap.geo")
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in polylines])])
    points = np.concatenate(polylines)
    type_id, classes = _class_ids(highways)
    successors, successor_offsets = _read_rel(folder / "roadmap.rel", len(polylines))
    road_map = RoadMap(
        points=points,
        point_offsets=offsets,
        centres=_centres(points, offsets),
        length_m=np.asarray(lengths),
        type_id=type_id,
        successors=successors,
        successor_offsets=successor_offsets,
    )
    return road_map, classes


def csv_rows(
    file: Path, columns: tuple[str, ...], report: Callable[[str, int, str], None] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) for every row of a CSV file that must have the given columns.

    Raises BadInput or BadLine; a row that is too short goes to `report` (kind, line, value) where that is given.
    """
    if not file.is_file():
        raise BadInput(f"{file}: no such file")
    csv.field_size_limit(sys.maxsize)  # a long trip is a long field
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            missing = [name for name in columns if name not in header]
            if missing:
                raise BadLine(file, 1, f"missing column(s) {', '.join(missing)}", ",".join(header))
            for values in filter(None, reader):  # csv.DictReader would skip empty lines as well, at half the speed
                row = dict(zip(header, values, strict=False))
                if all(name in row for name in columns):
                    yield reader.line_num, row
                    continue
                if report is None:
                    raise BadLine(file, reader.line_num, "too few fields", ",".join(values))
                report("too few fields", reader.line_num, ",".join(values))
    except UnicodeDecodeError:
        raise BadLine(file, *_first_undecodable(file)) from None
    except csv.Error as error:
        raise BadInput(f"{file}: not readable as CSV ({error})") from None


def _first_undecodable(file: Path) -> tuple[int, str, bytes]:
    """Where a file stops being UTF-8: line, problem and value."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, f"not UTF-8 text ({error.reason})", line[error.start : error.end]
    return 1, "not UTF-8 text", b""


def _read_geo(file: Path) -> tuple[list[Floats], list[str], list[float]]:
    polylines: list[Floats] = []
    highways: list[str] = []
    lengths: list[float] = []
    ends: Counter[tuple[float, ...]] = Counter()
    for line, row in csv_rows(file, ("coordinates", "highway", "length")):
        if "geo_id" in row and row["geo_id"].strip() != str(len(polylines)):
            raise BadLine(file, line, f"geo_id must be the row position {len(polylines)}", row["geo_id"])
        polylines.append(_polyline(file, line, row["coordinates"]))
        for point in map(tuple, polylines[-1][[0, -1]].tolist()):
            ends[point] += 1
            if ends[point] > MOST_AT_A_JUNCTION:
                raise BadLine(file, line, f"more than {MOST_AT_A_JUNCTION} road ends share one point", list(point))
        highways.append(_highway(file, line, row["highway"]))
        lengths.append(_length(file, line, row["length"]))
    if not polylines:
        raise BadInput(f"{file}: holds no road")
    return polylines, highways, lengths


def _polyline(file: Path, line: int, text: str) -> Floats:
    try:
        points = np.asarray(json.loads(text))
    except (ValueError, RecursionError):
        points = np.asarray(text)
    if points.dtype.kind not in "if":
        raise BadLine(file, line, "coordinates are not JSON [[lng, lat], ...]", text)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise BadLine(file, line, "coordinates need two or more [lng, lat] points", text)
    if not np.isfinite(points).all():
        raise BadLine(file, line, "coordinates are not finite", text)
    if (np.abs(points) > (180.0, 90.0)).any():
        raise BadLine(file, line, "coordinates must be [lng, lat] in degrees", text)
    return points.astype(np.float64)


def _length(file: Path, line: int, text: str) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        value = float("nan")
    if not (np.isfinite(value) and value >= 0):
        raise BadLine(file, line, "length must be a number of metres, zero or more", text)
    return value


def _highway(file: Path, line: int, text: str) -> str:
    """A class name or code; of a list, the first entry that is not `unclassified`."""
    entries: object = [text.strip()]
    if text.strip().startswith("["):
        try:
            entries = ast.literal_eval(text.strip())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            entries = None
    if not (isinstance(entries, list) and entries and all(isinstance(entry, str) for entry in entries)):
        raise BadLine(file, line, "highway is neither a class nor a list of classes", text)
    chosen: str = next((entry for entry in entries if entry != "unclassified"), "unclassified")
    if chosen.strip().lower() in ("", "nan"):  # `nan` is how data frames write a missing value
        raise BadLine(file, line, "highway is empty", text)
    return chosen


def _class_ids(highways: list[str]) -> tuple[Ints, tuple[str, ...]]:
    """Rank among the sorted distinct classes: integers by value, strings by code point."""
    distinct = set(highways)
    try:
        classes = tuple(sorted(distinct, key=lambda name: (int(name), name)))
    except ValueError:
        classes = tuple(sorted(distinct))
    rank = {name: index for index, name in enumerate(classes)}
    return np.asarray([rank[name] for name in highways], dtype=np.int64), classes


def _centres(points: Floats, offsets: Ints) -> Floats:
    """Centroids of the polylines in the plane of degrees; a polyline of zero length has its first point."""
    steps = np.diff(points, axis=0)
    weight = np.hypot(steps[:, 0], steps[:, 1])
    weight[offsets[1:-1] - 1] = 0.0  # the jump from one road's end to the next one's start
    midpoints = (points[:-1] + points[1:]) / 2
    starts = offsets[:-1]  # every road has two points or more, so each start has a segment
    total = np.add.reduceat(weight, starts)
    sums = np.add.reduceat(weight[:, None] * midpoints, starts, axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(total[:, None] > 0, sums / total[:, None], points[starts])


def _read_rel(file: Path, roads: int) -> tuple[Ints, Ints]:
    """Successors in row order and their offsets; a relation that is listed again is read once."""
    pairs: dict[tuple[int, int], None] = {}
    for line, row in csv_rows(file, ENDS):
        origin, destination = (road_id(file, line, name, row[name], roads) for name in ENDS)
        pairs[origin, destination] = None
    if not pairs:
        raise BadInput(f"{file}: holds no relation")
    table = np.asarray(list(pairs), dtype=np.int64)
    counts = np.bincount(table[:, 0], minlength=roads)
    if counts.max() > MOST_AT_A_JUNCTION:
        most = f"road {counts.argmax()} has {counts.max()} successors"
        raise BadInput(f"{file}: {most}, a road may have {MOST_AT_A_JUNCTION}")
    order = np.argsort(table[:, 0], kind="stable")
    return table[order, 1], np.concatenate([[0], np.cumsum(counts)])


def road_id(file: Path, line: int, name: str, text: str, roads: int) -> int:
    """The field `name` of a row, which must be a road of the map. Raises BadLine."""
    road = whole_number(text)
    if road is None:
        raise BadLine(file, line, f"{name}: road id is not an integer", text)
    if not 0 <= road < roads:
        raise BadLine(file, line, f"{name}: unknown road id (roadmap.geo has 0..{roads - 1})", text)
    return road


def whole_number(text: str) -> int | None:
    """A number in plain decimal digits, or None: `int` would also take `1_0`, `+10` and other scripts' digits."""
    text = text.strip()
    return int(text) if WHOLE_NUMBER.fullmatch(text) else None
