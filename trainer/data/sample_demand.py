"""When and between which places people of an invented city take a taxi.

R roads, K hot spots; hours are 0..23; a day is a weekday (0) or at the weekend (1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.data.sample_network import SampleNetwork
from trainer.data.sample_streets import RESIDENTIAL, Floats, Ints

MONDAY = np.datetime64("2024-03-04", "s").astype(np.int64)  # seconds since 1970
WEEKS = 4
DAY, HOUR = 86_400, 3_600
DAYS_OF = (np.array([0, 1, 2, 3, 4]), np.array([5, 6]))  # of a week, by kind of day

# Share of a day's departures by hour: quiet before dawn, two peaks on weekdays, late nights at the weekend.
DEPARTURES = np.array(
    [
        [18, 10, 6, 4, 4, 8, 20, 42, 58, 50, 40, 40, 44, 44, 42, 44, 50, 60, 66, 62, 52, 46, 40, 30],
        [52, 46, 38, 22, 10, 6, 8, 12, 20, 28, 36, 42, 46, 46, 44, 44, 46, 50, 56, 60, 58, 58, 60, 58],
    ],
    dtype=np.float64,
)


@dataclass(frozen=True)
class Kind:
    """What a hot spot is for: peak hours of arriving and leaving, its weight on weekdays and weekends."""

    arrive: float
    leave: float
    width: float  # hours around the peaks
    weight: tuple[float, float]


KINDS = (
    Kind(arrive=8.5, leave=18.0, width=2.0, weight=(3.0, 0.4)),  # offices
    Kind(arrive=19.5, leave=8.0, width=3.0, weight=(2.0, 2.0)),  # homes
    Kind(arrive=21.0, leave=1.0, width=2.5, weight=(0.8, 2.5)),  # bars and theatres
    Kind(arrive=14.0, leave=16.5, width=3.0, weight=(1.0, 2.0)),  # shops
    Kind(arrive=7.0, leave=20.0, width=7.0, weight=(1.2, 1.2)),  # a station
)
BACKGROUND = 0.08  # share of demand that is spread over the whole city
STEADY = 0.05  # of a hot spot's peak that lasts all day


@dataclass(frozen=True)
class Demand:
    """How likely trips start and end at each road, by kind of day and hour."""

    departures: Floats  # [2, 24], sums to 1: share of all trips
    origins: Floats  # [2, 24, R], each row sums to 1
    destinations: Floats  # [2, 24, R], each row sums to 1


def make_demand(network: SampleNetwork, rng: np.random.Generator) -> Demand:
    """Hot spots of every kind at random places, their strength moving with the hour."""
    middles = np.array([line[len(line) // 2] for line in network.polylines])
    spots = int(np.clip(network.roads // 150, len(KINDS), 40))
    kind = np.arange(spots) % len(KINDS)
    density = _densities(middles, network, spots, rng)
    size = rng.lognormal(0, 0.5, spots)
    arrive = np.array([[_strength(KINDS[k], day, KINDS[k].arrive) for k in kind] for day in (0, 1)])  # [2, K, 24]
    leave = np.array([[_strength(KINDS[k], day, KINDS[k].leave) for k in kind] for day in (0, 1)])
    per_day = np.array([len(days) for days in DAYS_OF])[:, None] * DEPARTURES
    return Demand(per_day / per_day.sum(), _mix(leave, size, density), _mix(arrive, size, density))


def departure_times(day: Ints, hour: Ints, rng: np.random.Generator) -> Ints:
    """A random time in the given hours on random days of the given kinds, seconds since 1970, [n]."""
    weekday = np.where(day == 0, rng.integers(0, 5, len(day)), rng.integers(5, 7, len(day)))
    week = rng.integers(0, WEEKS, len(day))
    return np.asarray(MONDAY + (7 * week + weekday) * DAY + hour * HOUR + rng.integers(0, HOUR, len(day)))


def _densities(middles: Floats, network: SampleNetwork, spots: int, rng: np.random.Generator) -> Floats:
    """For each hot spot how its demand is spread over the roads: a bell around a junction, [K, R]."""
    span = np.ptp(middles, axis=0).max()
    centres = middles[rng.choice(network.roads, spots, replace=False)]
    reach = np.clip(rng.uniform(0.04, 0.12, spots) * span, 0.0012, 0.006)  # degrees: about 100 to 500 m
    # Taxis are hailed in streets where they may stop, so quiet streets count more than a trunk road.
    kerb = network.length_m * np.where(network.level >= RESIDENTIAL, 1.0, 0.6) * rng.lognormal(0, 0.6, network.roads)
    squared = ((middles[None] - centres[:, None]) ** 2).sum(axis=2)
    bells = np.exp(-squared / (2 * reach[:, None] ** 2)) * kerb + 1e-12 * kerb
    uniform = kerb / kerb.sum()
    return np.asarray((1 - BACKGROUND) * bells / bells.sum(axis=1, keepdims=True) + BACKGROUND * uniform)


def _strength(kind: Kind, day: int, peak: float) -> Floats:
    """How strong a hot spot is at each hour, [24]."""
    hours = np.arange(24) + 0.5
    away = np.abs(hours - peak)
    away = np.minimum(away, 24 - away)
    return np.asarray(kind.weight[day] * (STEADY + np.exp(-0.5 * (away / kind.width) ** 2)))


def _mix(strength: Floats, size: Floats, density: Floats) -> Floats:
    """Demand per road from the hot spots' strengths [2, K, 24]: [2, 24, R]."""
    weights = np.swapaxes(strength * size[None, :, None], 1, 2)  # [2, 24, K]
    return np.asarray((weights / weights.sum(axis=2, keepdims=True)) @ density)
