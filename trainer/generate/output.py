"""Generated trips on disk: a CSV with the research code's columns, and a JSON beside it that says what made them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from trainer import files
from trainer.data.trip_text import format_times
from trainer.errors import BadInput
from trainer.generate.demand import Demand
from trainer.generate.route import Route

COLUMNS = (
    "origin_road_id",
    "destination_road_id",
    "source_index",
    "source_origin_time",
    "gene_trace_road_id",
    "gene_trace_datetime",
    "reached",
    "log_prob",
    "expansions",
)


def check_target(file: Path) -> None:
    """Raises BadInput for a CSV that could not be written at the end of a long search."""
    if file.suffix == ".json":
        raise BadInput(f"{file}: this name is for the description beside the CSV; name another --out")
    files.check_target(file)


def write_generated(file: Path, demand: Demand, routes: list[Route], about: dict[str, Any]) -> None:
    """Writes FILE and FILE's `.json`, each whole or not at all; never is an old description beside new trips."""
    beside, text = file.with_suffix(".json"), json.dumps(about, indent=1, allow_nan=False) + "\n"
    with files.whole_file(beside) as description:
        description.write_text(text)
        with files.whole_file(file) as partial:
            _write_trips(partial, demand, routes)
            beside.unlink(missing_ok=True)  # a failure from here on leaves trips without a description


def _write_trips(file: Path, demand: Demand, routes: list[Route]) -> None:
    with file.open("w", newline="") as stream:
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
                    route.expansions,
                )
            )
