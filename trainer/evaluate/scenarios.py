"""Kinds of trips that are judged apart, and the lines between them. A trip's scenario is that of its request.

A request is an origin road, a destination road and a start time: of a generated trip what was asked for, of a real trip
its first road, last road and first time. Distances are great circles between the roads' centres.

- day: `weekend` where the start is on Saturday or Sunday, else `weekday`.
- hour: the start's time of day, from the first hour up to but not the second: `night` 0-6, `morning` 6-10,
  `midday` 10-16, `evening` 16-20, `late` 20-24.
- length: distance from origin to destination: `short` up to the first tercile of the real trips that are compared
  with, `medium` up to the second one, `long` beyond.
- place: the map is cut into cells of 500 m, and each has as many visits as the train trips have points on roads whose
  centres lie in it. The fewest cells that have half of all visits, densest first (of equals the westernmost first),
  are central. `centre`: origin and destination lie in central cells; `periphery`: neither does; else `between`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.batches import is_weekend
from trainer.data.roadmap import Floats
from trainer.data.trips import Ints, Trips
from trainer.evaluate.cells import Cell, road_cells
from trainer.evaluate.judge import FIGURES, Ground, judge
from trainer.evaluate.kernels import EARTH_RADIUS_KM
from trainer.evaluate.paths import Sphere

HOURS = {"night": (0, 6), "morning": (6, 10), "midday": (10, 16), "evening": (16, 20), "late": (20, 24)}
DENSITY_CELL = Cell(500, "metre")
CENTRAL_SHARE = 0.5  # of all visits
NAMES = {
    "day": ("weekday", "weekend"),
    "hour": tuple(HOURS),
    "length": ("short", "medium", "long"),
    "place": ("centre", "between", "periphery"),
}


@dataclass(frozen=True)
class Requests:
    """n trips that are asked for."""

    origins: Ints  # [n] roads
    destinations: Ints  # [n] roads
    starts: Ints  # [n] seconds

    @classmethod
    def of(cls, trips: Trips, destinations: Ints | None = None) -> Requests:
        """With the given destinations or else, as of real trips, those that were reached."""
        first, last = trips.offsets[:-1], trips.offsets[1:] - 1
        ends = trips.roads[last].astype(np.int64) if destinations is None else destinations
        return cls(trips.roads[first].astype(np.int64), ends, np.asarray(trips.times[first]))


@dataclass(frozen=True)
class Scenarios:
    """The lines between scenarios; some depend on the data."""

    sphere: Sphere
    terciles_km: tuple[float, float]
    central: NDArray[np.bool_]  # [R]

    @classmethod
    def of(cls, train: Trips, real: Trips, sphere: Sphere) -> Scenarios:
        low, high = np.quantile(_beeline_km(Requests.of(real), sphere), [1 / 3, 2 / 3]).tolist()
        return cls(sphere, (low, high), _central(train, sphere))

    def codes(self, requests: Requests) -> dict[str, Ints]:
        """By kind of scenario the place of each request's own in NAMES, [n]."""
        hours = requests.starts % 86_400 / 3600
        central_ends = self.central[requests.origins].astype(np.int64) + self.central[requests.destinations]
        return {
            "day": is_weekend(requests.starts).astype(np.int64),
            "hour": np.searchsorted([end for _, end in HOURS.values()], hours, side="right"),
            "length": np.searchsorted(self.terciles_km, _beeline_km(requests, self.sphere), side="left"),
            "place": 2 - central_ends,
        }

    def lines(self) -> dict[str, Any]:
        """What the scenarios of this data are, in plain values."""
        return {
            "hours": {name: list(hours) for name, hours in HOURS.items()},
            "length_terciles_km": list(self.terciles_km),
            "density_cell_m": DENSITY_CELL.size,
            "central_share_of_visits": CENTRAL_SHARE,
            "central_roads": int(self.central.sum()),
        }


def scenario_tables(
    generated: Trips, destinations: Ints, real: Trips, ground: Ground, scenarios: Scenarios
) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of every scenario by kind and name: its generated trips against its real ones.

    Where it has no trips of either, figures are None and `empty` says which are missing.
    """
    mine = scenarios.codes(Requests.of(generated, destinations))
    theirs = scenarios.codes(Requests.of(real))
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, names in NAMES.items():
        tables[kind] = {}
        for code, name in enumerate(names):
            chosen, others = np.flatnonzero(mine[kind] == code), np.flatnonzero(theirs[kind] == code)
            if missing := [w for w, t in (("generated", chosen), ("real", others)) if not len(t)]:
                empty = {"empty": f"no {' and no '.join(missing)} trips", "compared_pairs": 0}
                counts = {"generated_trips": len(chosen), "real_trips": len(others)}
                tables[kind][name] = dict.fromkeys(FIGURES) | counts | empty
            else:
                found = judge(generated.select(chosen), real.select(others), ground, destinations[chosen])
                tables[kind][name] = dict(found.figures)
    return tables


def _beeline_km(requests: Requests, sphere: Sphere) -> Floats:
    chords = np.linalg.norm(sphere.units[requests.origins] - sphere.units[requests.destinations], axis=1)
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chords / 2, 1.0)))


def _central(train: Trips, sphere: Sphere) -> NDArray[np.bool_]:
    cells = road_cells(sphere.centres, DENSITY_CELL)
    visits = np.bincount(cells[train.roads], minlength=int(cells.max()) + 1)
    densest = np.argsort(-visits, kind="stable")
    needed = int(np.searchsorted(np.cumsum(visits[densest]), CENTRAL_SHARE * visits.sum())) + 1
    return np.isin(cells, densest[:needed])
