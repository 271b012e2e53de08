"""Plans the streets of an invented city: a bent, uneven grid, avenues, a river, a park, one-way streets.

N junctions, S streets. A street joins two junctions; `sample_network.py` makes its roads, one per direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# OSM highway classes from the most to the least important; a street's level is its class's place here.
CLASSES = ("trunk", "primary", "secondary", "tertiary", "unclassified", "residential", "living_street")
TRUNK, PRIMARY, SECONDARY, TERTIARY, UNCLASSIFIED, RESIDENTIAL, LIVING_STREET = range(len(CLASSES))

ROADS_PER_JUNCTION = 2.45  # what the plan below keeps, so that a tenth of its streets is there to be left out
ONE_WAY_SHARE = {SECONDARY: 0.25, TERTIARY: 0.4, RESIDENTIAL: 0.5}  # of the lines of a level
SMALLEST_SIDE_WITH_RIVER = 10


@dataclass(frozen=True)
class StreetPlan:
    """Streets that a city may have; `sample_network.py` leaves some of the minor ones out."""

    junctions: Floats  # [N, 2] metres east and north of the south-western corner
    ends: Ints  # [S, 2]
    level: Ints  # [S] index into CLASSES
    one_way: Ints  # [S] 1: only from the first end to the second, -1: only back, 0: both
    bridge: Bools  # [S]
    importance: Floats  # [S] the least important streets are left out first

    @property
    def streets(self) -> int:
        return len(self.ends)

    def select(self, kept: Bools) -> StreetPlan:
        """The plan with the streets where `kept` [S] holds."""
        return StreetPlan(
            self.junctions,
            self.ends[kept],
            self.level[kept],
            self.one_way[kept],
            self.bridge[kept],
            self.importance[kept],
        )


def plan_streets(roads: int, rng: np.random.Generator) -> StreetPlan:
    """A plan with somewhat more streets than a city of so many directed roads needs."""
    rows = max(4, round(math.sqrt(roads / ROADS_PER_JUNCTION) * 0.93))
    columns = max(4, math.ceil(roads / ROADS_PER_JUNCTION / rows))
    junctions = _junctions(rows, columns, rng)
    ends, level, one_way = _lines(rows, columns, rng)
    avenues = _avenues(rows, columns, rng)
    ends = np.concatenate([ends, avenues])
    level = np.concatenate([level, np.full(len(avenues), PRIMARY)])
    one_way = np.concatenate([one_way, np.zeros(len(avenues), np.int64)])
    level = _vary_minor(level, rng)
    bridge = _over_river(ends, rows, columns, rng)
    plan = StreetPlan(junctions, ends, level, one_way, bridge, _importance(junctions, ends, level, rng))
    in_park = _in_park(junctions, ends, rows, rng)
    return plan.select(~((bridge | in_park) & (level > TERTIARY)))


def _junctions(rows: int, columns: int, rng: np.random.Generator) -> Floats:
    """Crossings of uneven, bent lines, each moved a little, the whole turned: [rows * columns, 2] metres."""
    north = np.cumsum(rng.uniform(65, 140, rows))[:, None] + np.zeros(columns)
    east = np.cumsum(rng.uniform(65, 140, columns)) + np.zeros(rows)[:, None]
    waves = rng.uniform(0, 2 * np.pi, 2)
    bent_east = east + 60 * np.sin(north / 700 + waves[0])
    bent_north = north + 60 * np.sin(east / 900 + waves[1])
    flat = np.stack([bent_east.ravel(), bent_north.ravel()], axis=1) + rng.normal(0, 8, (rows * columns, 2))
    turn = rng.uniform(0.1, 0.4)
    return np.asarray(flat @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]))


def _lines(rows: int, columns: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """(ends, level, one_way) of the streets along the rows and then along the columns of the grid."""
    at = np.arange(rows * columns).reshape(rows, columns)
    row_level, row_way = _line_classes(rows, rng)
    column_level, column_way = _line_classes(columns, rng)
    along = np.stack([at[:, :-1].ravel(), at[:, 1:].ravel()], axis=1)
    across = np.stack([at[:-1].ravel(), at[1:].ravel()], axis=1)
    level = np.concatenate([np.repeat(row_level, columns - 1), np.tile(column_level, rows - 1)])
    one_way = np.concatenate([np.repeat(row_way, columns - 1), np.tile(column_way, rows - 1)])
    return np.concatenate([along, across]), level, one_way


def _line_classes(lines: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Level and direction of every line: each third one matters, each sixth more, each twelfth most."""
    place = np.arange(lines) + rng.integers(24)
    level = np.select(
        [place % 24 == 0, place % 12 == 0, place % 6 == 0, place % 3 == 0],
        [TRUNK, PRIMARY, SECONDARY, TERTIARY],
        RESIDENTIAL,
    )
    share = np.array([ONE_WAY_SHARE.get(int(each), 0.0) for each in level])
    alternating = np.where(np.arange(lines) % 2 == 0, 1, -1)
    return level, np.where(rng.random(lines) < share, alternating, 0)


def _avenues(rows: int, columns: int, rng: np.random.Generator) -> Ints:
    """Ends of the streets of diagonal avenues: even offsets, so that two of them cross at a junction."""
    ends: list[tuple[int, int]] = []
    count = max(1, rows // 25)
    for slope in (1, -1):
        offsets = 2 * rng.choice(max(rows // 4, 1), size=min(count, max(rows // 4, 1)), replace=False)
        for offset in offsets:
            first = int(offset) if slope == 1 else columns - 1 - int(offset) - (columns - 1) % 2
            path = [(row, first + slope * row) for row in range(rows) if 0 <= first + slope * row < columns]
            nodes = [row * columns + column for row, column in path]
            ends.extend(pairwise(nodes))
    return np.array(ends, dtype=np.int64).reshape(-1, 2)


def _vary_minor(level: Ints, rng: np.random.Generator) -> Ints:
    """Some residential streets become unclassified ones or living streets."""
    draw = rng.random(len(level))
    changed = np.select([draw < 0.06, draw > 0.96], [UNCLASSIFIED, LIVING_STREET], RESIDENTIAL)
    return np.where(level == RESIDENTIAL, changed, level)


def _over_river(ends: Ints, rows: int, columns: int, rng: np.random.Generator) -> Bools:
    """Which streets cross the river: their ends lie on different sides of it."""
    column = np.arange(columns)
    wave = 0.12 * rows * np.sin(2 * np.pi * column / columns + rng.uniform(0, 2 * np.pi))
    bank = rows * rng.uniform(0.3, 0.7) + wave
    if min(rows, columns) < SMALLEST_SIDE_WITH_RIVER:
        bank = np.full(columns, np.inf)
    north = (np.arange(rows)[:, None] > bank).ravel()
    return np.asarray(north[ends[:, 0]] != north[ends[:, 1]])


def _in_park(junctions: Floats, ends: Ints, rows: int, rng: np.random.Generator) -> Bools:
    """Streets whose middle lies in an ellipse somewhere around the centre."""
    middle = junctions[ends].mean(axis=1)
    low, high = junctions.min(axis=0), junctions.max(axis=0)
    centre = low + (high - low) * rng.uniform(0.3, 0.7, 2)
    radius = (high - low) * (0.08 if rows >= SMALLEST_SIDE_WITH_RIVER else 0.0) + 1e-9
    return np.asarray((((middle - centre) / radius) ** 2).sum(axis=1) < 1)


def _importance(junctions: Floats, ends: Ints, level: Ints, rng: np.random.Generator) -> Floats:
    """Infinite for streets that stay; else chance plus a wave over the city, so that gaps come in groups."""
    middle = junctions[ends].mean(axis=1)
    wave = np.sin(middle[:, 0] / 310 + 1) * np.sin(middle[:, 1] / 270 + 2)
    return np.where(level <= TERTIARY, np.inf, rng.random(len(ends)) + 0.4 * wave)
