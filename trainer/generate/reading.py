"""Generated trips read back from their CSV, and what the JSON beside it says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.roadmap import csv_rows, road_id
from trainer.data.trip_text import parse_time
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, BadLine


@dataclass(frozen=True)
class GeneratedTrip:
    """One row."""

    roads: list[int]
    times: list[int]  # seconds at which each is entered
    destination: int  # requested


@dataclass(frozen=True)
class Generated:
    """Generated trips as read back."""

    trips: Trips
    destinations: Ints  # [n] requested


def made_by(file: Path) -> str | None:
    """Digest of the student that generated a CSV, from the JSON beside it; None where there is none."""
    try:
        digest = json.loads(file.with_suffix(".json").read_text()).get("model_digest")
    except (OSError, ValueError, AttributeError):
        return None
    return digest if isinstance(digest, str) else None


def generated_trips(file: Path, roads: int) -> Iterator[GeneratedTrip]:
    """The rows of such a CSV, one after the other. Raises BadInput or BadLine."""
    needed = ("destination_road_id", "gene_trace_road_id", "gene_trace_datetime")
    found = False
    for line, row in csv_rows(file, needed):
        trace = _json_list(file, line, row["gene_trace_road_id"], int)
        times = _times(file, line, row["gene_trace_datetime"])
        if not trace or len(trace) != len(times):
            raise BadLine(file, line, "not a trip", f"{len(trace)} roads, {len(times)} times")
        for road in trace:
            if not 0 <= road < roads:
                raise BadLine(file, line, f"unknown road id (roadmap.geo has 0..{roads - 1})", road)
        yield GeneratedTrip(trace, times, road_id(file, line, "destination_road_id", row["destination_road_id"], roads))
        found = True
    if not found:
        raise BadInput(f"{file}: holds no trip")


def read_generated(file: Path, roads: int) -> Generated:
    """All of them as arrays. Raises BadInput or BadLine."""
    found = list(generated_trips(file, roads))
    trips = Trips(
        np.concatenate([np.asarray(trip.roads, np.int32) for trip in found]),
        np.concatenate([np.asarray(trip.times, np.int64) for trip in found]),
        np.concatenate([[0], np.cumsum([len(trip.roads) for trip in found])]),
    )
    return Generated(trips, np.asarray([trip.destination for trip in found]))


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
