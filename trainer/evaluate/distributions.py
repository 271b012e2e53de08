"""How alike two sets of trips are as a whole: Jensen-Shannon divergences between histograms of their measures.

C are the roads' centres, [R, 2] as lng, lat in degrees. Every trip has one road or more.
"""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from trainer.data.trips import Ints, Trips
from trainer.evaluate.paths import Floats, haversine_km

BINS = 99  # equal ones up to the greatest real value; one more holds what lies above


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
    edges = np.linspace(0, greatest_real, BINS + 1)
    place = np.minimum(np.searchsorted(edges, values, side="right") - 1, BINS - 1)
    place = np.where(values > greatest_real, BINS, place)
    return np.bincount(place, minlength=BINS + 1)


def values_jsd(generated: Floats, real: Floats) -> float | None:
    """Divergence between non-negative values by `histogram`; None where either set has none."""
    if not (len(generated) and len(real)):
        return None
    greatest = float(real.max())
    return jensen_shannon(histogram(generated, greatest), histogram(real, greatest))


def trip_distance_km(trips: Trips, centres: Floats) -> Floats:
    """Distance along the centres of each trip's roads, [n]; 0 for a trip of one road."""
    points = centres[trips.roads]
    inner = _inner_steps(trips)
    km = haversine_km(points[:-1], points[1:])[inner]
    trip = _trip_of_point(trips)[1:][inner]
    return np.bincount(trip, weights=km, minlength=len(trips)).astype(np.float64)


def trip_radius_km(trips: Trips, centres: Floats) -> Floats:
    """Mean distance of a trip's road centres to their mean, [n]."""
    points, trip = centres[trips.roads], _trip_of_point(trips)
    mean = np.add.reduceat(points, trips.offsets[:-1], axis=0) / trips.lengths[:, None]
    km = haversine_km(points, mean[trip])
    return np.asarray(np.bincount(trip, weights=km, minlength=len(trips)) / trips.lengths)


def step_minutes(trips: Trips) -> Floats:
    """Time between consecutive roads of the same trip, all trips' steps in one row, minutes."""
    return np.asarray(np.diff(trips.times)[_inner_steps(trips)] / 60.0)


def trip_minutes(trips: Trips) -> Floats:
    """Time between the first and the last road of each trip, [n], minutes."""
    return np.asarray((trips.times[trips.offsets[1:] - 1] - trips.times[trips.offsets[:-1]]) / 60.0)


def global_divergences(generated: Trips, real: Trips, centres: Floats) -> dict[str, float | None]:
    """All divergences by name; None where a set has no step at all."""
    visits = [np.bincount(trips.roads, minlength=len(centres)) for trips in (generated, real)]
    return {
        "Distance_JSD": values_jsd(trip_distance_km(generated, centres), trip_distance_km(real, centres)),
        "Radius_JSD": values_jsd(trip_radius_km(generated, centres), trip_radius_km(real, centres)),
        "Duration_JSD": values_jsd(step_minutes(generated), step_minutes(real)),
        "TripDuration_JSD": values_jsd(trip_minutes(generated), trip_minutes(real)),
        "RoadVisit_JSD": jensen_shannon(visits[0], visits[1]),
    }


def _trip_of_point(trips: Trips) -> Ints:
    return np.repeat(np.arange(len(trips)), trips.lengths)


def _inner_steps(trips: Trips) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the steps between neighbouring points stay within a trip, [P - 1]."""
    inner = np.ones(max(len(trips.roads) - 1, 0), dtype=bool)
    inner[trips.offsets[1:-1] - 1] = False
    return inner
