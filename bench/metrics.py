"""`python -m bench.metrics`: the evaluation's compiled loops against plain Python ones, as ratios within one run.

10,000 pairs and 10,000 + 10,000 trips of San Francisco, on two CPU threads at most. The plain way takes one
distance table a pair.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from bench.__main__ import table_of
from bench.city import DATA
from bench.compare import Comparison, compare, seconds
from bench.plain_metrics import global_metrics, local_metrics
from trainer.data.prepare import prepare
from trainer.data.roadmap import Floats
from trainer.data.trips import Trips
from trainer.evaluate.cells import Cell
from trainer.evaluate.distributions import global_divergences, measure_both
from trainer.evaluate.judge import Ground, judge
from trainer.evaluate.paths import Sphere, compare_pairs

TRIPS = 10_000
PLAIN_PAIRS = 1_000  # that the plain way is timed on; its time is proportional to them
TIMES = 20  # that ours is called a run, for it takes milliseconds
Numbers = NDArray[np.float32]


def measure_local(generated: Trips, real: Trips, centres: Floats, runs: int) -> Comparison:
    """Hausdorff, DTW, EDR and their forms of one pair after another. Raises ValueError when the ways differ."""
    points, pairs = centres.tolist(), np.stack([np.arange(TRIPS)] * 2, axis=1)
    few = pairs[:PLAIN_PAIRS]

    def plain() -> Numbers:
        return np.array([local_metrics(_path(generated, i, points), _path(real, j, points)) for i, j in few.tolist()])

    def ours(chosen: NDArray[np.int64] = pairs) -> Numbers:
        return np.stack(list(vars(compare_pairs(generated, real, chosen, Sphere.of(centres))).values()), axis=1)

    compare("the same values", len(few), "pairs", plain=plain, ours=lambda: ours(few), runs=1)
    timed = [(seconds(plain) * TRIPS / len(few), seconds(ours, TIMES)) for _ in range(runs)]
    return Comparison("local metrics", TRIPS, "pairs", tuple(p for p, _ in timed), tuple(o for _, o in timed))


def _path(trips: Trips, trip: int, points: list[list[float]]) -> list[list[float]]:
    return [points[road] for road in trips.roads_of(trip).tolist()]


def measure_global(generated: Trips, real: Trips, centres: Floats, runs: int) -> Comparison:
    """Five divergences between two sets of trips. Raises ValueError when the ways differ."""
    points, sphere = centres.tolist(), Sphere.of(centres)

    def ours() -> Numbers:
        found = global_divergences(*measure_both(generated, real, sphere))
        order = ("Distance_JSD", "Radius_JSD", "Duration_JSD", "TripDuration_JSD", "RoadVisit_JSD")
        return np.array([found[name] for name in order], dtype=np.float32)

    def plain() -> Numbers:
        return np.array(global_metrics(generated, real, points), dtype=np.float32)

    return compare("global metrics", 2 * TRIPS, "trips", plain=plain, ours=ours, runs=runs, times=TIMES)


def main(
    data: Annotated[Path, typer.Option(help="HOSER folder.")] = DATA,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each way.")] = 7,
    out: Annotated[Path | None, typer.Option(help="JSON file for all timings.")] = None,
) -> None:
    """Measure ratios against plain loops."""
    with tempfile.TemporaryDirectory() as scratch:
        city = prepare(data, Path(scratch)).city
        train, centres = city.trips["train"], np.array(city.road_map.centres)
        generated = train.select(np.arange(TRIPS) % len(train))
        real = train.select(np.arange(len(train) - TRIPS, len(train)))
        # The second half of one is the first of the other, so that each trip meets another one.
        found = [measure(generated, real, centres, runs) for measure in (measure_local, measure_global)]
        whole = [seconds(lambda: judge(generated, real, Ground.of(centres, Cell()))) for _ in range(runs)]
    if out:
        out.write_text(
            json.dumps({"comparisons": [each.to_json() for each in found], "whole_s": whole}, indent=1) + "\n"
        )
    Console().print(table_of(found))
    print(f"all metrics of {TRIPS:,} generated against {TRIPS:,} real trips: {np.median(whole):.3f} s")


if __name__ == "__main__":
    typer.run(main)
