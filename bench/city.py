"""Real trips as score work: San Francisco's train set on a grid of 0.0005 degree. Needs numpy only."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teacher_server.rows import ScoreWork

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "san_francisco"
CELL = 0.0005


class City:
    """Trips, the roads that may follow each road, and each road's cell."""

    def __init__(self, folder: Path = DATA, trips: int = 2048) -> None:
        with (folder / "roadmap.geo").open(newline="") as file:
            centres = np.array([_centre(json.loads(row["coordinates"])) for row in csv.DictReader(file)])
        columns, rows = np.floor((centres - centres.min(0)) / CELL).astype(np.int32).T
        self.cells: NDArray[np.int32] = rows * (columns.max() + 1) + columns
        self.following: dict[int, list[int]] = {}
        with (folder / "roadmap.rel").open(newline="") as file:
            for row in csv.DictReader(file):
                self.following.setdefault(int(row["origin_id"]), []).append(int(row["destination_id"]))
        with (folder / "train.csv").open(newline="") as file:
            some = itertools.islice(csv.DictReader(file), trips)
            self.trips = [[int(road) for road in row["rid_list"].strip("[]").split(",")] for row in some]

    def work(self, first: int, count: int, window: int) -> ScoreWork:
        """Every step of `count` trips, with all roads that may follow as candidates."""
        trips = [trip[:-1] for trip in self.trips[first : first + count]]
        roads = [road for trip in trips for road in trip]
        lengths = np.array([len(trip) for trip in trips])
        candidates = [self.cells[self.following[road]] for road in roads]
        return ScoreWork(
            tokens=self.cells[roads],
            lengths=lengths,
            scored=lengths,
            windows=np.full(len(trips), window),
            candidates=np.concatenate(candidates),
            candidate_counts=np.array([len(each) for each in candidates]),
        )


def _centre(line: list[list[float]]) -> NDArray[np.float64]:
    points = np.array(line)
    spans = np.hypot(*np.diff(points, axis=0).T)
    middles: NDArray[np.float64] = (points[1:] + points[:-1]) / 2
    return (middles * spans[:, None]).sum(0) / spans.sum() if spans.sum() else points[0]
