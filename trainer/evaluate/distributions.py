"""How alike two sets of trips are as a whole: Jensen-Shannon divergences between histograms of their measures.

C are the roads' centres, [R, 2] as lng, lat in degrees. Every trip has one road or more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import rel_entr

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints, Trips
from trainer.evaluate import kernels
from trainer.evaluate.paths import Sphere, writable

BINS = 99  # equal ones up to the greatest real value; one more holds what lies above
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


def histogram(values: Floats, greatest_real: float) -> Ints:
    """Counts in 99 equal bins over [0, greatest_real], both ends included, and of what is greater, [100]."""
    counts = np.zeros(BINS + 1, np.int64)
    kernels.count_bins(values, np.linspace(0, greatest_real, BINS + 1), counts)
    return counts


def places(values: Floats, greatest_real: float) -> Ints:
    """The bin of each value in such a histogram, 0..99."""
    edges = np.linspace(0, greatest_real, BINS + 1)
    inside = np.minimum(np.searchsorted(edges, values, side="right") - 1, BINS - 1)
    return np.where(values > greatest_real, BINS, inside)


def values_jsd(generated: Floats, real: Floats) -> float | None:
    """Divergence between non-negative values by `histogram`; None where either set has none."""
    if not (len(generated) and len(real)):
        return None
    greatest = float(real.max())
    return jensen_shannon(histogram(generated, greatest), histogram(real, greatest))


@dataclass(frozen=True)
class Measures:
    """What is compared of n trips with P points."""

    distance_km: Floats  # [n] along the centres of a trip's roads; 0 for one road
    radius_km: Floats  # [n] mean distance of a trip's road centres to their mean
    minutes: Floats  # [n] between the first and the last road
    step_minutes: Floats  # [P - n] between neighbouring roads of a trip, trip by trip
    visits: Ints  # [R] of each road

    @classmethod
    def of(cls, trips: Trips, sphere: Sphere) -> Measures:
        n, (roads, times, offsets) = len(trips), (trips.roads, trips.times, trips.offsets)
        visits = np.zeros(len(sphere.units), np.int64)
        empty = cls(np.empty(n), np.empty(n), np.empty(n), np.empty(len(roads) - n), visits)
        kernels.measure_trips(
            sphere.units,
            sphere.near,
            sphere.centres,
            writable(roads, np.int32),
            writable(times, np.int64),
            writable(offsets, np.int64),
            *(getattr(empty, field.name) for field in fields(cls)),
        )
        return empty


def measure_both(generated: Trips, real: Trips, sphere: Sphere) -> tuple[Measures, Measures]:
    """At the same time, where the process has two cores."""
    with ThreadPoolExecutor(2) as pool:
        mine, theirs = pool.map(Measures.of, (generated, real), (sphere, sphere))
    return mine, theirs


def global_divergences(generated: Measures, real: Measures) -> dict[str, float | None]:
    """All divergences by name; None where a set has no step at all."""
    each = {name: values_jsd(getattr(generated, field), getattr(real, field)) for name, field in HISTOGRAMS.items()}
    return {**each, "RoadVisit_JSD": jensen_shannon(generated.visits, real.visits)}
