"""The judgement of a file of generated trips: figures for people, and an entry for every trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.city import City
from trainer.data.trips import Trips
from trainer.evaluate.cells import Cell
from trainer.evaluate.distributions import HISTOGRAMS, Measures, histograms
from trainer.evaluate.judge import LOCAL_NAMES, Ground, Judgement, judge
from trainer.evaluate.scenarios import Requests, Scenarios, scenario_tables
from trainer.evaluate.stored import Arrays
from trainer.files import digest_of
from trainer.generate.reading import Generated, about

SEARCH = ("search", "max_expansions", "beam_width", "temperature")  # how routes were looked for


def judge_generated(
    file: Path, found: Generated, city: City, split: str, od_cell: Cell
) -> tuple[dict[str, Any], Arrays]:
    """Of what was read from `file`, against a split's real trips; docs/evaluation.md says what stands in both."""
    real, train = city.trips[split], city.trips["train"]
    ground = Ground.of(np.asarray(city.road_map.centres), od_cell)
    scenarios = Scenarios.of(train, real, ground.sphere)
    judged = judge(found.trips, real, ground, found.destinations)
    figures = {
        "generated": file.name,
        "generated_digest": digest_of(file),
        "generated_with": {name: value for name, value in about(file).items() if name in SEARCH},
        "dropped_trips": dict(found.dropped),
        "od_cell": [od_cell.size, od_cell.unit],
        **judged.figures,
        "scenario_lines": scenarios.lines(),
        "scenarios": scenario_tables(found.trips, found.destinations, real, ground, scenarios),
        "distributions": distributions(judged),
    }
    codes = scenarios.codes(Requests.of(found.trips, found.destinations))
    return figures, entries(found, judged) | {f"scenario_{kind}": code.astype(np.int8) for kind, code in codes.items()}


def distributions(judged: Judgement) -> dict[str, dict[str, Any]]:
    """The histograms that divergences are taken of: equal bins from 0 to `greatest`, and one for what is greater."""
    found = {}
    for field in HISTOGRAMS.values():
        greatest, mine, theirs = histograms(judged.generated, judged.real, field)
        found[field] = {"greatest": greatest, "generated": mine.tolist(), "real": theirs.tolist()}
    return found


def entries(found: Generated, judged: Judgement) -> Arrays:
    """What is kept of every trip."""
    return _requests(found) | _of_trips(judged)


def _requests(found: Generated) -> Arrays:
    """The trips themselves, n of them with P points in all."""
    trips, requests = found.trips, Requests.of(found.trips, found.destinations)
    return {
        "line": found.lines,
        "origin": requests.origins.astype(np.int32),
        "destination": requests.destinations.astype(np.int32),
        "start": requests.starts,
        "reached": trips.roads[trips.offsets[1:] - 1] == found.destinations,
        "offsets": trips.offsets,
        "roads": trips.roads.astype(np.int32),
        "seconds": _since_start(trips),
    }


def _since_start(trips: Trips) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(trips.times - np.repeat(trips.times[trips.offsets[:-1]], trips.lengths))


def _of_trips(judged: Judgement) -> Arrays:
    """What was measured of each; NaN and -1 where there is no real trip to compare with."""
    n, mine = len(judged.generated.minutes), judged.pairs[:, 0]
    arrays: Arrays = {"real_trip": np.full(n, -1, np.int64)}
    arrays["real_trip"][mine] = judged.pairs[:, 1]
    for name, field in LOCAL_NAMES.items():
        arrays[name] = np.full(n, np.nan)
        arrays[name][mine] = getattr(judged.distances, field)
    sides: dict[str, Measures] = {"": judged.generated, "real_": judged.real}
    for prefix, measures in sides.items():
        for field in ("distance_km", "radius_km", "minutes", "visits"):
            arrays[prefix + field] = getattr(measures, field)
    return arrays
