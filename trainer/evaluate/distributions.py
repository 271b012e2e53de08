"""How alike two sets of trips are as a whole: Jensen-Shannon divergences between histograms of their measures.

C are the roads' centres, [R, 2] as lng, lat in degrees. Every trip has one road or more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints, Trips
from trainer.evaluate import kernels
from trainer.evaluate.paths import Sphere, writable

BINS = 99  # equal ones up to the greatest real value; one more holds what lies above
LONGEST_STEP_S = 4096  # steps that take no longer are counted as they are met
HISTOGRAMS = {
    "Distance_JSD": "distance_km",
    "Radius_JSD": "radius_km",
    "Duration_JSD": "step_minutes",
    "TripDuration_JSD": "minutes",
}


def jensen_shannon(p: Floats | Ints, q: Floats | Ints) -> float:
    """Divergence of two histograms of the same bins with natural logarithm: 0 (alike) to log 2 = 0.693.

    (KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2 (Lin 1991). Raises ValueError for an empty histogram.
    """
    if not (p.sum() > 0 and q.sum() > 0):
        raise ValueError("a histogram without entries has no divergence")
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    divergence = float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2
    return max(divergence, 0.0)  # rounding can bring it a hair below zero


def histogram(values: Floats, greatest_real: float, counts: Ints | None = None) -> Ints:
    """How many are in 99 equal bins over [0, greatest_real], both ends included, and how many are greater, [100].

    `counts`: how often each value is there.
    """
    if counts is not None:
        weighted = np.bincount(places(values, greatest_real), weights=counts, minlength=BINS + 1)
        return weighted.astype(np.int64)
    found = np.zeros(BINS + 1, np.int64)
    kernels.count_bins(values, np.linspace(0, greatest_real, BINS + 1), found)
    return found


def places(values: Floats, greatest_real: float) -> Ints:
    """The bin of each value in such a histogram, 0..99."""
    edges = np.linspace(0, greatest_real, BINS + 1)
    inside = np.minimum(np.searchsorted(edges, values, side="right") - 1, BINS - 1)
    return np.where(values > greatest_real, BINS, inside)


@dataclass(frozen=True)
class Measures:
    """What is compared of n trips with P points."""

    distance_km: Floats  # [n] along the centres of a trip's roads; 0 for one road
    radius_km: Floats  # [n] mean distance of a trip's road centres to their mean
    minutes: Floats  # [n] between the first and the last road
    step_minutes: Floats  # [k] distinct times between neighbouring roads of a trip, ascending
    step_counts: Ints  # [k] how many steps take each
    visits: Ints  # [R] of each road

    @classmethod
    def of(cls, trips: Trips, sphere: Sphere) -> Measures:
        distance, radius, minutes = (np.empty(len(trips)) for _ in range(3))
        by_second, visits = np.zeros(LONGEST_STEP_S, np.int64), np.zeros(len(sphere.units), np.int64)
        too_long = kernels.measure_trips(
            sphere.units,
            sphere.near,
            sphere.centres,
            writable(trips.roads, np.int32),
            writable(trips.times, np.int64),
            writable(trips.offsets, np.int64),
            distance,
            radius,
            minutes,
            by_second,
            visits,
        )
        seconds = np.flatnonzero(by_second)
        counts = by_second[seconds]
        if too_long:
            seconds, counts = np.unique(_step_seconds(trips), return_counts=True)
        return cls(distance, radius, minutes, seconds / 60.0, counts, visits)

    def histogram(self, field: str, greatest_real: float) -> Ints:
        """Of one of HISTOGRAMS, [100]."""
        return histogram(getattr(self, field), greatest_real, self.step_counts if field == "step_minutes" else None)


def measure_both(generated: Trips, real: Trips, sphere: Sphere) -> tuple[Measures, Measures]:
    """At the same time, where the process has two cores."""
    with ThreadPoolExecutor(2) as pool:
        mine, theirs = pool.map(Measures.of, (generated, real), (sphere, sphere))
    return mine, theirs


def histograms(generated: Measures, real: Measures, field: str) -> tuple[float, Ints, Ints]:
    """The greatest real value of one of HISTOGRAMS (0 where there is none), and both sides' counts, [100] each."""
    greatest = float(getattr(real, field).max(initial=0.0))
    return greatest, generated.histogram(field, greatest), real.histogram(field, greatest)


def divergence(generated: Measures, real: Measures, field: str) -> float | None:
    """Of one of HISTOGRAMS; None where a set has no value."""
    _, mine, theirs = histograms(generated, real, field)
    return jensen_shannon(mine, theirs) if mine.any() and theirs.any() else None


def global_divergences(generated: Measures, real: Measures) -> dict[str, float | None]:
    """All divergences by name; None where a set has no step at all."""
    each = {name: divergence(generated, real, field) for name, field in HISTOGRAMS.items()}
    return {**each, "RoadVisit_JSD": jensen_shannon(generated.visits, real.visits)}


def _step_seconds(trips: Trips) -> Ints:
    """Between neighbouring roads of the same trip, trip by trip."""
    inner = np.ones(len(trips.roads) - 1, dtype=bool)
    inner[trips.offsets[1:-1] - 1] = False
    return np.asarray(np.diff(trips.times)[inner])
