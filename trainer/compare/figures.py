"""What is compared of each run: entries for every request, sets of trips as histograms, and single figures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trainer.compare.bootstrap import Draws, Histogram
from trainer.compare.runs import Run
from trainer.data.roadmap import Floats
from trainer.data.trips import Ints, Trips
from trainer.evaluate.distributions import HISTOGRAMS, places
from trainer.evaluate.judge import LOCAL_NAMES
from trainer.evaluate.next_step import NEXT_STEP

# By name the array of an evaluation that has an entry for every trip.
OF_TRIPS = {"destination_reached_rate": "reached", **{name: name for name in (*LOCAL_NAMES, "anomaly_score")}}
OF_SETS = (*HISTOGRAMS, "RoadVisit_JSD")
OF_RUNS = (*NEXT_STEP, "od_pair_match_rate", "origin_match_rate", "destination_match_rate")
BETTER_HIGH = {name for name in (*OF_TRIPS, *OF_RUNS) if name.endswith(("_rate", "_accuracy"))}


@dataclass
class RunFigures:
    """Of one run, of the requests that all runs have; what takes long is computed once."""

    run: Run
    chosen: Ints  # [n] trips of the run, in the order of the requests
    _drawn: dict[str, tuple[float, Floats]] = field(default_factory=dict)

    def knows(self, name: str) -> bool:
        """Whether the evaluation has entries of this name; only one with a teacher has anomaly scores."""
        return OF_TRIPS[name] in self.run.evaluation.trips

    def of_trips(self, name: str) -> Floats:
        """An entry for every request, [n]; NaN where there is none."""
        return self.run.evaluation.trips[OF_TRIPS[name]][self.chosen].astype(np.float64)

    def of_run(self, name: str) -> float:
        """A single figure; NaN where there is none."""
        value = self.run.evaluation.figures.get(name)
        return float("nan") if value is None else float(value)

    def of_set(self, name: str, draws: Draws) -> tuple[float, Floats]:
        """A divergence of all requests' trips from the real ones, and those of the draws, [D]."""
        if name not in self._drawn:
            histogram = self._histogram(name)
            self._drawn[name] = histogram.divergence(), histogram.drawn(draws)
        return self._drawn[name]

    def _histogram(self, name: str) -> Histogram:
        arrays, n = self.run.evaluation.trips, len(self.chosen)
        trips = Trips(arrays["roads"], arrays["seconds"], arrays["offsets"]).select(self.chosen)
        trip_of_point = np.repeat(np.arange(n), trips.lengths)
        if name == "RoadVisit_JSD":
            return Histogram.of(trips.roads.astype(np.int64), trip_of_point, n, arrays["real_visits"])
        measure = HISTOGRAMS[name]
        told = self.run.evaluation.figures["distributions"][measure]
        if measure == "step_minutes":
            inner = trip_of_point[1:] == trip_of_point[:-1]
            values, of = np.diff(trips.times)[inner] / 60, trip_of_point[1:][inner]
        else:
            values, of = arrays[measure][self.chosen], np.arange(n)
        return Histogram.of(places(values, told["greatest"]), of, n, told["real"])
