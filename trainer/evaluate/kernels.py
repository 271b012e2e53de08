"""The compiled loops over ragged trips: path by path, point by point.

Great-circle distances come from unit vectors [R, 3]: half the chord between two of them is the sine of half their
angle, which is the root of the haversine formula. R roads; trips are `roads`, `times` [P] and `offsets` [n + 1].
"""

from __future__ import annotations

import math

import numpy as np

from trainer.machine_code import compiled

EARTH_RADIUS_KM = 6371.0088
SHORT_CHORD = 0.008  # 51 km: up to there three terms of the arc sine are as exact as 64 bits are


@compiled
def km_of(x, y, z, near):  # type: ignore[no-untyped-def]
    """Length of the arc above a chord of the unit sphere; `near`: on a map without longer chords than SHORT_CHORD."""
    square = x * x + y * y + z * z
    chord = math.sqrt(square)
    if near:
        return chord * (EARTH_RADIUS_KM + square * (EARTH_RADIUS_KM / 24 + square * (EARTH_RADIUS_KM * 3 / 640)))
    return 2 * EARTH_RADIUS_KM * math.asin(min(chord / 2, 1.0))


@compiled
def compare_paths(units, near, a_roads, a_offsets, b_roads, b_offsets, pairs, tolerance_km, found):  # type: ignore[no-untyped-def]
    """For every one of `pairs` [n, 2] (trip of a, trip of b) fills `found` [n, 3], see compare_points."""
    for pair in range(len(pairs)):
        one, other = pairs[pair]
        a = units[a_roads[a_offsets[one] : a_offsets[one + 1]]]
        b = np.ascontiguousarray(units[b_roads[b_offsets[other] : b_offsets[other + 1]]].T)
        found[pair, 0], found[pair, 1], found[pair, 2] = compare_points(a, b, near, tolerance_km)


@compiled
def compare_points(a, b, near, tolerance_km):  # type: ignore[no-untyped-def]
    """Hausdorff distance (km), DTW (km) and edits between two paths of unit vectors, [n, 3] and [3, m].

    - Hausdorff: the farthest that any point of either path is from the nearest point of the other.
    - DTW: D[i, j] = d[i, j] + min(D[i-1, j], D[i, j-1], D[i-1, j-1]), without a band (Sakoe and Chiba 1978).
    - Edits between real sequences (Chen, Oezsu and Oria 2005): points match within the tolerance; a substitution,
      insertion or deletion costs 1.

    Of each table one row is kept, and it is walked with the places to the left and above in hand.
    """
    m = b.shape[1]
    km, nearest = np.empty(m), np.full(m, np.inf)
    warp, edits = np.full(m + 1, np.inf), np.arange(m + 1)
    warp[0], farthest = 0.0, 0.0
    for i in range(len(a)):
        x, y, z = a[i]
        for j in range(m):
            km[j] = km_of(x - b[0, j], y - b[1, j], z - b[2, j], near)
        nearest_to_a = np.inf
        warp_diagonal, warp_left, edits_diagonal, edits_left = warp[0], np.inf, i, i + 1
        for j in range(m):
            d = km[j]
            nearest_to_a, nearest[j] = min(nearest_to_a, d), min(nearest[j], d)
            warp_left = d + min(min(warp_diagonal, warp[j + 1]), warp_left)
            warp_diagonal, warp[j + 1] = warp[j + 1], warp_left
            edits_left = min(edits_diagonal + (1 if d > tolerance_km else 0), min(edits[j + 1], edits_left) + 1)
            edits_diagonal, edits[j + 1] = edits[j + 1], edits_left
        warp[0], farthest = np.inf, max(farthest, nearest_to_a)
    return max(farthest, nearest.max()), warp[m], edits[m]


@compiled
def measure_trips(units, near, centres, roads, times, offsets, distance, radius, minutes, by_second, visits):  # type: ignore[no-untyped-def]
    """For every trip: km along the centres [R, 2] (lng, lat) of its roads, mean km to their mean, and minutes.

    Adds to `visits` [R] how often each road is visited, and to `by_second` how many steps take so many seconds.
    Returns how many take too long for it. A trip's points are first put side by side, where the processor takes
    several at once.
    """
    too_long, longest = 0, 0
    for trip in range(len(offsets) - 1):
        longest = max(longest, offsets[trip + 1] - offsets[trip])
    path, km = np.empty((3, longest)), np.empty(longest)
    for trip in range(len(offsets) - 1):
        first, last = offsets[trip], offsets[trip + 1]
        points, lng, lat, along, spread = last - first, 0.0, 0.0, 0.0, 0.0
        for point in range(points):
            road = np.uint32(roads[first + point])  # else it is looked at whether it counts from the end
            visits[road] += 1
            lng, lat = lng + centres[road, 0], lat + centres[road, 1]
            path[0, point], path[1, point], path[2, point] = units[road, 0], units[road, 1], units[road, 2]
        km_of_steps(path, points, near, km)
        for step in range(points - 1):
            along += km[step]
            seconds = times[first + step + 1] - times[first + step]
            if 0 <= seconds < len(by_second):
                by_second[seconds] += 1
            else:
                too_long += 1
        km_from(path, points, math.radians(lng / points), math.radians(lat / points), near, km)
        for point in range(points):
            spread += km[point]
        distance[trip], radius[trip] = along, spread / points
        minutes[trip] = (times[last - 1] - times[first]) / 60.0
    return too_long


@compiled
def km_of_steps(path, points, near, km):  # type: ignore[no-untyped-def]
    """Between each of the first `points` of a path [3, n] and the next one."""
    x, y, z = path[0], path[1], path[2]  # unpacking is slow here
    for i in range(points - 1):
        km[i] = km_of(x[i + 1] - x[i], y[i + 1] - y[i], z[i + 1] - z[i], near)


@compiled
def km_from(path, points, lng, lat, near, km):  # type: ignore[no-untyped-def]
    """Between each of the first `points` of a path [3, n] and a place, in radians."""
    x, y, z = path[0], path[1], path[2]  # unpacking is slow here
    a, b, c = math.cos(lat) * math.cos(lng), math.cos(lat) * math.sin(lng), math.sin(lat)
    for i in range(points):
        km[i] = km_of(x[i] - a, y[i] - b, z[i] - c, near)


@compiled
def count_bins(values, edges, counts):  # type: ignore[no-untyped-def]
    """Adds to `counts` [bins + 1]: edges[b] <= value < edges[b + 1] is in b, the last edge in the last bin, what is
    greater in the one more. Edges are equally far apart from 0 on; a first guess is put right by comparing with them.
    """
    bins, greatest = len(edges) - 1, edges[-1]
    a_unit = bins / greatest if greatest > 0 else 0.0
    for value in values:
        if value > greatest:
            counts[bins] += 1
            continue
        place = min(max(int(value * a_unit), 0), bins - 1)
        while place > 0 and value < edges[place]:
            place -= 1
        while place < bins - 1 and value >= edges[place + 1]:
            place += 1
        counts[place] += 1
