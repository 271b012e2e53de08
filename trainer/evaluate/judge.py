"""All figures about generated trips: as sets, pair by pair, and whether they arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput
from trainer.evaluate.cells import Cell, road_cells
from trainer.evaluate.distributions import HISTOGRAMS, Measures, global_divergences, measure_both
from trainer.evaluate.pairs import EndCells, match_rates, pair_trips
from trainer.evaluate.paths import PathDistances, Sphere, compare_pairs

LOCAL_NAMES = {
    "Hausdorff_km": "hausdorff_km",
    "Hausdorff_norm": "hausdorff_norm",
    "DTW_km": "dtw_km",
    "DTW_norm": "dtw_norm",
    "EDR": "edr",
}
RATES = ("od_pair_match_rate", "origin_match_rate", "destination_match_rate", "destination_reached_rate")
FIGURES = (*HISTOGRAMS, "RoadVisit_JSD", *LOCAL_NAMES, *RATES)


@dataclass(frozen=True)
class Ground:
    """The road map as trips on it are compared."""

    sphere: Sphere
    od_cells: Ints  # [R] cell of each road as an origin or destination

    @classmethod
    def of(cls, centres: Floats, od_cell: Cell) -> Ground:
        """From the roads' centres, [R, 2] as lng, lat."""
        return cls(Sphere.of(centres), road_cells(centres, od_cell))


@dataclass(frozen=True)
class Judgement:
    """What was found of generated trips against real ones.

    `figures` by name:

    - `Distance_JSD`, `Radius_JSD`, `Duration_JSD` (of steps), `TripDuration_JSD`, `RoadVisit_JSD`: see distributions.
    - `Hausdorff_km`, `DTW_km`, `EDR` and the `_norm` forms (divided by the points of the longer path): means over all
      compared pairs of trips; None where no generated trip has the OD-cell pair of a real one.
    - `od_pair_match_rate`, `origin_match_rate`, `destination_match_rate`: see pairs.
    - `destination_reached_rate`: share of generated trips whose last road is the requested one; None where nobody says
      what was requested.
    - `generated_trips`, `real_trips`, `compared_pairs`: counts.
    """

    figures: dict[str, float | None]
    generated: Measures
    real: Measures
    pairs: Ints  # [pairs, 2] generated and real trip that were compared
    distances: PathDistances  # of the pairs


def judge(generated: Trips, real: Trips, ground: Ground, requested_destinations: Ints | None = None) -> Judgement:
    """Compares all trips. Raises BadInput where a set has no trips, a trip has no road, or a road is not on the map."""
    _check(generated, "generated", len(ground.od_cells))
    _check(real, "real", len(ground.od_cells))
    ends, real_ends = (EndCells.of(trips, ground.od_cells) for trips in (generated, real))
    pairs = pair_trips(ends, real_ends)
    measures, real_measures = measure_both(generated, real, ground.sphere)
    distances = compare_pairs(generated, real, pairs, ground.sphere)
    figures = {
        **global_divergences(measures, real_measures),
        **_local_means(distances),
        **match_rates(ends, real_ends),
        "destination_reached_rate": _reached_rate(generated, requested_destinations),
        "generated_trips": len(generated),
        "real_trips": len(real),
        "compared_pairs": len(pairs),
    }
    return Judgement(figures, measures, real_measures, pairs, distances)


def _check(trips: Trips, which: str, roads: int) -> None:
    if not len(trips):
        raise BadInput(f"there are no {which} trips to evaluate")
    if (trips.lengths < 1).any():
        raise BadInput(f"{which} trip {int(np.argmin(trips.lengths))} has no road")
    outside = (trips.roads < 0) | (trips.roads >= roads)
    if outside.any():
        point = int(np.argmax(outside))
        trip = int(np.searchsorted(trips.offsets, point, side="right")) - 1
        raise BadInput(f"{which} trip {trip}: road {trips.roads[point]} is not on the road map (0..{roads - 1})")


def _local_means(found: PathDistances) -> dict[str, float | None]:
    each = {name: getattr(found, field) for name, field in LOCAL_NAMES.items()}
    return {name: float(values.mean()) if len(values) else None for name, values in each.items()}


def _reached_rate(generated: Trips, requested: Ints | None) -> float | None:
    if requested is None:
        return None
    if len(requested) != len(generated):
        raise ValueError(f"{len(requested)} requested destinations for {len(generated)} generated trips")
    return float(np.mean(generated.roads[generated.offsets[1:] - 1] == requested))
