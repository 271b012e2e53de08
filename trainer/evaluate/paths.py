"""How far paths lie apart, pair by pair: Hausdorff distance, dynamic time warping, edit distance on real sequences.

A path is the centres of a trip's roads, [R, 2] as lng, lat in degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.roadmap import Floats
from trainer.data.trips import Ints, Trips
from trainer.evaluate import kernels

EDR_TOLERANCE_KM = 0.1


@dataclass(frozen=True)
class PathDistances:
    """n pairs of paths. The `_norm` fields are divided by the points of the longer path of each pair."""

    hausdorff_km: Floats  # [n]
    hausdorff_norm: Floats
    dtw_km: Floats
    dtw_norm: Floats
    edr: Floats  # edits as a share of the longer path's points, 0..1


@dataclass(frozen=True)
class Sphere:
    """The roads' centres as the compiled loops take them."""

    centres: Floats  # [R, 2] lng, lat in degrees
    units: Floats  # [R, 3] points of the unit sphere
    near: bool  # whether all lie so close together that the loops can take their short way

    @classmethod
    def of(cls, centres: Floats) -> Sphere:
        """Of lng, lat in degrees, [R, 2]."""
        centres = writable(centres, np.float64)
        lng, lat = np.radians(centres).T
        units = np.stack([np.cos(lat) * np.cos(lng), np.cos(lat) * np.sin(lng), np.sin(lat)], axis=1)
        return cls(centres, units, bool(np.linalg.norm(np.ptp(units, axis=0)) < kernels.SHORT_CHORD))


def writable(values: NDArray[Any], kind: type) -> NDArray[Any]:
    """As a plain array of one type; the loops are compiled anew for memory maps and for what is read-only."""
    return np.require(values, kind, ["C", "W", "E"])


def compare_pairs(
    generated: Trips, real: Trips, pairs: Ints, sphere: Sphere, tolerance_km: float = EDR_TOLERANCE_KM
) -> PathDistances:
    """The distances between the paths of each pair (generated trip, real trip), [n, 2], in their order.

    Great-circle distances between centres; every trip has one road or more. Takes the memory of the results only.
    """
    found = np.empty((len(pairs), 3))
    sides = [a for t in (generated, real) for a in (writable(t.roads, np.int32), writable(t.offsets, np.int64))]
    kernels.compare_paths(sphere.units, sphere.near, *sides, pairs, tolerance_km, found)
    longer = np.maximum(generated.lengths[pairs[:, 0]], real.lengths[pairs[:, 1]])
    hausdorff, dtw, edits = found.T
    return PathDistances(hausdorff, hausdorff / longer, dtw, dtw / longer, edits / longer)
