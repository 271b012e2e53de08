"""Single trips to step through: the real one, and what each run made of the same origin, destination and start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints, Trips
from trainer.evaluate.distributions import Measures
from trainer.evaluate.paths import Sphere, compare_pairs
from trainer.report.runs import Routes, Run
from trainer.report.streets import Streets, packed

PLAIN, STRIKING = 150, 25  # shown: the first ones of the file, and of each way to stand out the farthest


@dataclass(frozen=True)
class Party:
    """One set of trips [n] with what is told of each; NaN where it is not known."""

    trips: Trips
    km: Floats
    minutes: Floats
    apart_km: Floats  # Hausdorff distance from the real trip
    reached: Ints  # 1, 0, or -1 for unknown
    expansions: Floats
    log_prob: Floats

    @classmethod
    def real(cls, trips: Trips, sphere: Sphere) -> Party:
        unknown = np.full(len(trips), np.nan)
        measures = Measures.of(trips, sphere)
        never = np.full(len(trips), -1)
        return cls(trips, measures.distance_km, measures.minutes, unknown, never, unknown, unknown)

    @classmethod
    def generated(cls, routes: Routes, real: Trips | None, partners: Ints, sphere: Sphere) -> Party:
        trips = routes.generated.trips
        measures, apart = Measures.of(trips, sphere), np.full(len(trips), np.nan)
        if real is not None and (known := np.flatnonzero(partners >= 0)).size:
            pairs = np.stack([known, partners[known]], axis=1)
            apart[known] = compare_pairs(trips, real, pairs, sphere).hausdorff_km
        return cls(
            trips, measures.distance_km, measures.minutes, apart, routes.reached, routes.expansions, routes.log_prob
        )

    def one(self, trip: int, streets: Streets) -> dict[str, Any] | None:
        """For the page; None for trip -1."""
        if trip < 0:
            return None
        roads = self.trips.roads_of(trip)
        return {
            "streets": packed(streets.signed(roads), np.uint32),
            "roads": len(roads),
            "km": _rounded(self.km[trip], 3),
            "minutes": _rounded(self.minutes[trip], 2),
            "apart": _rounded(self.apart_km[trip], 3),
            "reached": None if self.reached[trip] < 0 else bool(self.reached[trip]),
            "expansions": _rounded(self.expansions[trip], 0),
            "logProb": _rounded(self.log_prob[trip], 2),
        }


def journeys(runs: list[Run], splits: dict[str, Trips], streets: Streets, sphere: Sphere) -> dict[str, Any]:
    """Those of the first run that has trips; another run shows its trip of the same ends and start, where it has it."""
    numbers = [number for number, run in enumerate(runs) if run.routes]
    shown = [(run, run.routes) for run in runs if run.routes]
    real = splits.get(str(shown[0][0].made.get("od")))
    partners = [real_partners(routes, real) for _, routes in shown]
    parties = [Party.generated(routes, real, own, sphere) for (_, routes), own in zip(shown, partners, strict=True)]
    truth = Party.real(real, sphere) if real is not None else None
    leader = shown[0][1]
    places = [same_journeys(leader, routes) for _, routes in shown]
    trips = [
        {
            "row": trip,
            "destination": int(streets.signed(leader.generated.destinations[[trip]])[0]),
            "start": int(starts_of(leader)[trip]),
            "real": truth.one(int(partners[0][trip]), streets) if truth else None,
            "generated": [party.one(int(at[trip]), streets) for party, at in zip(parties, places, strict=True)],
        }
        for trip in chosen(parties[0])
    ]
    return {
        "names": [run.name for run, _ in shown],
        "numbers": numbers,
        "trips": trips,
        "of": len(leader.generated.trips),
    }


def real_partners(routes: Routes, real: Trips | None) -> Ints:
    """Which real trip each journey was drawn from, [n]; -1 where it was not, or where the ends do not agree."""
    if real is None:
        return np.full(len(routes.sources), -1)
    sources = np.where((routes.sources >= 0) & (routes.sources < len(real)), routes.sources, 0)
    origins, destinations = real.roads[real.offsets[sources]], real.roads[real.offsets[sources + 1] - 1]
    same = (origins == routes.origins) & (destinations == routes.generated.destinations) & (routes.sources == sources)
    return np.where(same, sources, -1)


def starts_of(routes: Routes) -> Ints:
    """Start times, [n] seconds."""
    trips = routes.generated.trips
    return np.asarray(trips.times[trips.offsets[:-1]])


def same_journeys(leader: Routes, other: Routes) -> Ints:
    """For each journey of the leader its row in the other, [n]; -1 where it is not there."""

    def keys(routes: Routes) -> list[tuple[int, ...]]:
        parts = (routes.origins, routes.generated.destinations, starts_of(routes), routes.sources)
        return list(zip(*(part.tolist() for part in parts), strict=True))

    rows = {key: row for row, key in reversed(list(enumerate(keys(other))))}
    return np.array([rows.get(key, -1) for key in keys(leader)])


def chosen(party: Party) -> list[int]:
    """The first trips of the file, which is in random order, and those that stand out; in the file's order."""
    rows = set(range(min(PLAIN, len(party.trips))))
    for strikes in (party.reached == 0, party.apart_km, party.expansions, -party.log_prob):
        order = np.argsort(-np.nan_to_num(strikes.astype(float), nan=-np.inf), kind="stable")
        rows.update(order[:STRIKING].tolist())
    return sorted(rows)


def _rounded(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
