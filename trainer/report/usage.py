"""How often each street is driven on: in real trips, in each run's, and the difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints
from trainer.report.streets import Streets, difference_breaks, packed, usage_breaks


def usage(streets: Streets, real: tuple[Ints, int], generated: dict[str, tuple[Ints, int]]) -> dict[str, Any]:
    """For the page: counts of each set, and the classes that colours stand for, the same for all runs.

    A set is the visits of each road [R] and its number of trips; `generated` is by name of run.
    """
    counts = {name: streets.visits(visits) for name, (visits, _) in generated.items()}
    trips = {name: count for name, (_, count) in generated.items()}
    real_counts = streets.visits(real[0])
    real_rate = per_thousand(real_counts, real[1])
    rates = {name: per_thousand(counts[name], trips[name]) for name in counts}
    return {
        "real": {"counts": packed(real_counts, np.uint32), "trips": real[1]},
        "generated": [{"name": n, "counts": packed(counts[n], np.uint32), "trips": trips[n]} for n in counts],
        "usageBreaks": usage_breaks(np.concatenate([real_rate, *rates.values()])),
        "differenceBreaks": difference_breaks(np.concatenate([rate - real_rate for rate in rates.values()])),
    }


def per_thousand(visits: Ints, trips: int) -> Floats:
    """Visits per 1,000 trips, so that sets of different sizes compare."""
    return np.asarray(visits * (1000.0 / trips))
