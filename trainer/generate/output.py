"""Generated trips on disk: a CSV with the research code's columns, and a JSON beside it that says what made them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer import files
from trainer.data.roadmap import csv_rows, road_id
from trainer.data.trip_text import format_times, parse_time
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, BadLine
from trainer.generate.demand import Demand
from trainer.generate.search import Route

COLUMNS = (
    "origin_road_id",
    "destination_road_id",
    "source_index",
    "source_origin_time",
    "gene_trace_road_id",
    "gene_trace_datetime",
    "reached",
    "log_prob",
)


@dataclass(frozen=True)
class Generated:
    """Generated trips as read back."""

    trips: Trips
    destinations: Ints  # [n] requested


def check_target(file: Path) -> None:
    """Raises BadInput for a CSV that could not be written at the end of a long search."""
    if file.suffix == ".json":
        raise BadInput(f"{file}: this name is for the description beside the CSV; name another --out")
    files.check_target(file)


def write_generated(file: Path, demand: Demand, routes: list[Route], about: dict[str, Any]) -> None:
    """Writes FILE and FILE's `.json`, each whole or not at all."""
    with files.whole_file(file) as partial, partial.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for index, route in enumerate(routes):
            times = format_times(np.asarray(route.path.times))
            writer.writerow(
                (
                    demand.origins[index],
                    demand.destinations[index],
                    demand.sources[index],
                    format_times(demand.starts[index : index + 1])[0],
                    json.dumps(route.path.roads),
                    json.dumps(times),
                    route.reached,
                    f"{route.path.log_prob:.6f}",
                )
            )
    files.write_json(file.with_suffix(".json"), about)


def made_by(file: Path) -> str | None:
    """Digest of the student that generated a CSV, from the JSON beside it; None where there is none."""
    try:
        digest = json.loads(file.with_suffix(".json").read_text()).get("model_digest")
    except (OSError, ValueError, AttributeError):
        return None
    return digest if isinstance(digest, str) else None


def read_generated(file: Path, roads: int) -> Generated:
    """Reads such a CSV. Raises BadInput or BadLine."""
    road_lists: list[list[int]] = []
    time_lists: list[list[int]] = []
    destinations: list[int] = []
    needed = ("destination_road_id", "gene_trace_road_id", "gene_trace_datetime")
    for line, row in csv_rows(file, needed):
        trace = _json_list(file, line, row["gene_trace_road_id"], int)
        times = _times(file, line, row["gene_trace_datetime"])
        if not trace or len(trace) != len(times):
            raise BadLine(file, line, "not a trip", f"{len(trace)} roads, {len(times)} times")
        for road in trace:
            if not 0 <= road < roads:
                raise BadLine(file, line, f"unknown road id (roadmap.geo has 0..{roads - 1})", road)
        road_lists.append(trace)
        time_lists.append(times)
        destinations.append(road_id(file, line, "destination_road_id", row["destination_road_id"], roads))
    if not road_lists:
        raise BadInput(f"{file}: holds no trip")
    trips = Trips(
        np.concatenate([np.asarray(r, np.int32) for r in road_lists]),
        np.concatenate([np.asarray(t, np.int64) for t in time_lists]),
        np.concatenate([[0], np.cumsum([len(r) for r in road_lists])]),
    )
    return Generated(trips, np.asarray(destinations))


def _times(file: Path, line: int, text: str) -> list[int]:
    """Seconds of a JSON list of times that never go back."""
    times: list[int] = []
    for stamp in _json_list(file, line, text, str):
        seconds = parse_time(stamp)
        if seconds is None:
            raise BadLine(file, line, "not YYYY-MM-DDTHH:MM:SSZ", stamp)
        if times and seconds < times[-1]:
            raise BadLine(file, line, "time goes back", stamp)
        times.append(seconds)
    return times


def _json_list(file: Path, line: int, text: str, kind: type) -> list[Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(value) is kind for value in values):  # true is no int
        raise BadLine(file, line, f"not a JSON list of {kind.__name__}", text)
    return values
