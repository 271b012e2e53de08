"""Artificial outliers for judging anomaly scores: route switches and detours. Pure numpy.

Both move tokens by `level` cells in one of 8 directions and stay in the grid; the first and the last token, the
trip's origin and destination, never move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from teacher_server.fit.tokens import Cells, Trips
from teacher_server.vocabulary import Grid

RATIO = 0.05  # share of outliers among the judged trips
ATTEMPTS = 20  # draws until a trip differs from what it was
DIRECTIONS = np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)])  # [8, 2] row, column

Kind = Literal["route_switch", "detour"]


@dataclass(frozen=True)
class OutlierSetting:
    """One way to make outliers. `share` is p: of inner tokens moved on average, or of the trip shifted."""

    kind: Kind
    level: int  # cells
    share: float


SETTINGS = tuple(
    OutlierSetting(kind, level, share)
    for kind in ("route_switch", "detour")
    for level, share in ((3, 0.1), (3, 0.3), (5, 0.1))
)


def route_switch(trip: Cells, grid: Grid, level: int, share: float, generator: np.random.Generator) -> Cells:
    """Each inner token moves with probability `share`, each in a direction of its own that stays in the grid."""
    moved = trip.copy()
    for place in 1 + np.flatnonzero(generator.random(len(trip) - 2) < share):
        _shift(moved[place : place + 1], grid, level, generator)
    return moved


def detour(trip: Cells, grid: Grid, level: int, share: float, generator: np.random.Generator) -> Cells:
    """One stretch of inner tokens, `share` of the trip but at least one, is shifted as a whole."""
    moved = trip.copy()
    length = min(max(1, round(share * len(trip))), len(trip) - 2)
    start = int(generator.integers(1, len(trip) - length))
    _shift(moved[start : start + length], grid, level, generator)
    return moved


_MAKERS: dict[Kind, Callable[[Cells, Grid, int, float, np.random.Generator], Cells]] = {
    "route_switch": route_switch,
    "detour": detour,
}


def make_outliers(
    trips: Trips, grid: Grid, setting: OutlierSetting, generator: np.random.Generator, ratio: float = RATIO
) -> tuple[NDArray[np.int64], Trips]:
    """(numbers of the chosen trips, ascending; their altered versions): `ratio` of all trips, at least one.

    Only trips that really change are chosen: three tokens or more, and a draw that moved something. Raises
    ValueError where too few can be changed.
    """
    wanted = max(1, round(ratio * len(trips)))
    found: dict[int, Cells] = {}
    for trip in generator.permutation(len(trips)):
        altered = _altered(trips[trip], grid, setting, generator)
        if altered is not None:
            found[int(trip)] = altered
        if len(found) == wanted:
            chosen = sorted(found)
            return np.array(chosen), Trips.of([found[trip] for trip in chosen])
    raise ValueError(f"only {len(found)} of {len(trips)} trips can be altered, {wanted} are needed")


def _altered(trip: Cells, grid: Grid, setting: OutlierSetting, generator: np.random.Generator) -> Cells | None:
    if len(trip) < 3:
        return None
    for _ in range(ATTEMPTS):
        altered = _MAKERS[setting.kind](trip, grid, setting.level, setting.share, generator)
        if not np.array_equal(altered, trip):
            return altered
    return None


def _shift(tokens: Cells, grid: Grid, level: int, generator: np.random.Generator) -> None:
    """Move the tokens together, in place; where no direction keeps all of them in the grid, they stay."""
    rows, columns = np.divmod(tokens, grid.columns)
    to_row = rows[None] + level * DIRECTIONS[:, :1]  # [8, tokens]
    to_column = columns[None] + level * DIRECTIONS[:, 1:]
    inside = (to_row >= 0) & (to_row < grid.rows) & (to_column >= 0) & (to_column < grid.columns)
    possible = np.flatnonzero(inside.all(1))
    if len(possible):
        choice = generator.choice(possible)
        tokens[:] = to_row[choice] * grid.columns + to_column[choice]
