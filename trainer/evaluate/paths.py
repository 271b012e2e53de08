"""How far two paths lie apart: Hausdorff distance, dynamic time warping and edit distance on real sequences.

A path is its roads' centres, [n, 2] as lng, lat in degrees. All measures start from the distances between every
point of one path and every point of the other, [n, m] in km, so that these are computed once a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EARTH_RADIUS_KM = 6371.0088
EDR_TOLERANCE_KM = 0.1


@dataclass(frozen=True)
class PathDistances:
    """One pair of paths. The `_norm` fields are divided by max(n, m), the points of the longer path."""

    hausdorff_km: float
    hausdorff_norm: float
    dtw_km: float
    dtw_norm: float
    edr: float  # share of the longer path's points, 0..1


def haversine_km(a: Floats, b: Floats) -> Floats:
    """Great-circle distances between points [..., 2] (lng, lat in degrees), by broadcasting: [...]."""
    lng_a, lat_a = np.moveaxis(np.radians(a), -1, 0)
    lng_b, lat_b = np.moveaxis(np.radians(b), -1, 0)
    half = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lng_b - lng_a) / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0))))


def compare_paths(a: Floats, b: Floats) -> PathDistances:
    """All measures between two paths of one point or more, [n, 2] and [m, 2]."""
    distances = haversine_km(a[:, None], b[None, :])
    longer = max(distances.shape)
    hausdorff = hausdorff_km(distances)
    warped = dtw_km(distances)
    return PathDistances(hausdorff, hausdorff / longer, warped, warped / longer, edr(distances))


def hausdorff_km(distances: Floats) -> float:
    """The farthest that any point of either path is from the nearest point of the other."""
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def dtw_km(distances: Floats) -> float:
    """Least sum of distances over alignments that go forward in both paths, from both starts to both ends.

    The exact dynamic programme D[i, j] = d[i, j] + min(D[i-1, j], D[i, j-1], D[i-1, j-1]) (Sakoe and Chiba 1978,
    without a band), computed along anti-diagonals: the cells of one depend on the two before only.
    """
    n, m = distances.shape
    skewed = np.full((n + m - 1, n), np.inf)  # [i + j, i]
    rows = np.arange(n)[:, None]
    skewed[rows + np.arange(m), rows] = distances
    before = np.full(n + 1, np.inf)  # the anti-diagonal two steps back; place 0 stands for i = -1
    last = np.full(n + 1, np.inf)
    before[0] = 0.0  # the start of all alignments
    for diagonal in skewed:
        new = np.full(n + 1, np.inf)
        new[1:] = diagonal + np.minimum(np.minimum(last[1:], last[:-1]), before[:-1])
        before, last = last, new
    return float(last[n])


def edr(distances: Floats, tolerance_km: float = EDR_TOLERANCE_KM) -> float:
    """Edit distance on real sequences (Chen, Oezsu and Oria 2005) divided by the points of the longer path.

    Points match where they lie within the tolerance; a substitution, insertion or deletion costs 1.
    """
    n, m = distances.shape
    differ = (distances > tolerance_km).astype(np.int64)
    places = np.arange(m + 1)
    row = places.copy()
    for i in range(n):
        above = np.concatenate([[i + 1], np.minimum(row[:-1] + differ[i], row[1:] + 1)])
        # Insertions walk along the row at 1 a place, so the best of them is a running minimum.
        row = np.minimum.accumulate(above - places) + places
    return float(row[m]) / max(n, m)
