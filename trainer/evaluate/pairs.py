"""Pairs generated trips with real ones that start and end in the same cells.

A trip's OD-cell pair is the cells of its first and last road's centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.data.trips import Ints, Trips


@dataclass(frozen=True)
class EndCells:
    """Cells in which trips start and end, [n] each."""

    origin: Ints
    destination: Ints

    @classmethod
    def of(cls, trips: Trips, cells: Ints) -> EndCells:
        """From the cells of all roads, [R]."""
        return cls(cells[trips.roads[trips.offsets[:-1]]], cells[trips.roads[trips.offsets[1:] - 1]])

    def pairs(self) -> Ints:
        """One number for each trip's pair of cells, [n]; the same for the same pair in any set of trips."""
        return (self.origin << 32) | self.destination


def match_rates(generated: EndCells, real: EndCells) -> dict[str, float]:
    """Share of the generated trips' distinct OD-cell pairs, origin and destination cells that real trips have."""
    return {
        "od_pair_match_rate": _share_found(generated.pairs(), real.pairs()),
        "origin_match_rate": _share_found(generated.origin, real.origin),
        "destination_match_rate": _share_found(generated.destination, real.destination),
    }


def _share_found(wanted: Ints, there: Ints) -> float:
    return float(np.isin(np.unique(wanted), there).mean())


def pair_trips(generated: EndCells, real: EndCells) -> Ints:
    """(generated trip, real trip) to compare, [pairs, 2].

    Within an OD-cell pair the i-th generated trip goes with the i-th real one, as far as both have trips; ordered
    by the generated trip.
    """
    both = np.concatenate([generated.pairs(), real.pairs()])
    numbers = np.unique(both, return_inverse=True)[1]
    mine, theirs = (_with_turn(part, len(both)) for part in np.split(numbers, [len(generated.origin)]))
    _, mine, theirs = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    order = np.argsort(mine)
    return np.stack([mine[order], theirs[order]], axis=1)


def _with_turn(pairs: Ints, most: int) -> Ints:
    """A number for each trip's pair and how many trips before it have the same pair, fewer than `most`, [n]."""
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    turn = np.empty_like(order)
    turn[order] = np.arange(len(pairs)) - np.searchsorted(ordered, ordered)
    return pairs * most + turn
