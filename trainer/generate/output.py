"""Generated trips on disk: a CSV with the research code's columns, and a JSON beside it that says what made them."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.roadmap import csv_rows
from trainer.data.trip_files import format_times, parse_time
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, BadLine
from trainer.generate.demand import Demand
from trainer.generate.search import Route
from trainer.run_folder import write_json

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


def write_generated(file: Path, demand: Demand, routes: list[Route], about: dict[str, Any]) -> None:
    """Writes FILE and FILE's `.json`, each whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("w", newline="") as stream:
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
    os.replace(partial, file)
    write_json(file.with_suffix(".json"), about)


def read_generated(file: Path, roads: int) -> Generated:
    """Reads such a CSV. Raises BadInput or BadLine."""
    road_lists: list[list[int]] = []
    time_lists: list[list[int]] = []
    destinations: list[int] = []
    needed = ("destination_road_id", "gene_trace_road_id", "gene_trace_datetime")
    for line, row in csv_rows(file, needed):
        trace = _json_list(file, line, row["gene_trace_road_id"], int)
        times = [parse_time(text) for text in _json_list(file, line, row["gene_trace_datetime"], str)]
        if len(trace) != len(times) or not trace or None in times or not row["destination_road_id"].isdecimal():
            raise BadLine(file, line, "roads and times do not make a trip", row["gene_trace_datetime"])
        if not all(0 <= road < roads for road in trace):
            raise BadLine(file, line, f"road ids must be 0..{roads - 1}", row["gene_trace_road_id"])
        road_lists.append(trace)
        time_lists.append([t for t in times if t is not None])
        destinations.append(int(row["destination_road_id"]))
    if not road_lists:
        raise BadInput(f"{file}: holds no trip")
    trips = Trips(
        np.concatenate([np.asarray(r, np.int32) for r in road_lists]),
        np.concatenate([np.asarray(t, np.int64) for t in time_lists]),
        np.concatenate([[0], np.cumsum([len(r) for r in road_lists])]),
    )
    return Generated(trips, np.asarray(destinations))


def _json_list(file: Path, line: int, text: str, kind: type) -> list[Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise BadLine(file, line, f"not a JSON list of {kind.__name__}", text)
    return values
