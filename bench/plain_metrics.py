"""The metrics as loops in plain Python, pair by pair and trip by trip: what the compiled ones are measured against."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from itertools import pairwise

from trainer.data.trips import Trips

RADIUS_KM = 6371.0088
TOLERANCE_KM = 0.1
BINS = 99

Point = Sequence[float]  # lng, lat in degrees
Path = Sequence[Point]


def haversine_km(a: Point, b: Point) -> float:
    lat_a, lat_b = math.radians(a[1]), math.radians(b[1])
    half_lng, half_lat = math.radians(b[0] - a[0]) / 2, (lat_b - lat_a) / 2
    h = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lng) ** 2
    return 2 * RADIUS_KM * math.asin(math.sqrt(h))


def distance_table(a: Path, b: Path) -> list[list[float]]:
    return [[haversine_km(p, q) for q in b] for p in a]


def hausdorff(table: list[list[float]]) -> float:
    there = max(min(row) for row in table)
    back = max(min(column) for column in zip(*table, strict=True))
    return max(there, back)


def dtw(table: list[list[float]]) -> float:
    before = [0.0] + [math.inf] * len(table[0])
    for row in table:
        now = [math.inf]
        for j, d in enumerate(row):
            now.append(d + min(before[j], before[j + 1], now[j]))
        before = now
    return before[-1]


def edits(table: list[list[float]]) -> int:
    before = list(range(len(table[0]) + 1))
    for i, row in enumerate(table, start=1):
        now = [i]
        for j, d in enumerate(row):
            now.append(min(before[j] + (d > TOLERANCE_KM), before[j + 1] + 1, now[j] + 1))
        before = now
    return before[-1]


def local_metrics(a: Path, b: Path) -> tuple[float, float, float, float, float]:
    """Hausdorff, DTW, EDR and the forms divided by the longer path, from one table of distances."""
    table, longer = distance_table(a, b), max(len(a), len(b))
    far, warped = hausdorff(table), dtw(table)
    return far, far / longer, warped, warped / longer, edits(table) / longer


def divergence(p: list[int], q: list[int]) -> float:
    total, sum_p, sum_q = 0.0, sum(p), sum(q)
    for a, b in zip(p, q, strict=True):
        a, b = a / sum_p, b / sum_q
        for x in (a, b):
            total += 0.5 * x * math.log(x / ((a + b) / 2)) if x else 0.0
    return total


def histogram(values: list[float], greatest: float) -> list[int]:
    edges = [greatest * i / BINS for i in range(BINS)]
    counts = [0] * (BINS + 1)
    for value in values:
        counts[BINS if value > greatest else bisect.bisect_right(edges, value) - 1] += 1
    return counts


def measures(trips: Trips, centres: Path) -> dict[str, list[float]]:
    """Trip by trip: what is put into histograms, and the visits of every road."""
    found: dict[str, list[float]] = {"distance": [], "radius": [], "step": [], "duration": []}
    for trip in range(len(trips)):
        path = [centres[road] for road in trips.roads_of(trip).tolist()]
        times = trips.times_of(trip).tolist()
        found["distance"].append(sum(haversine_km(a, b) for a, b in pairwise(path)))
        mean = (sum(p[0] for p in path) / len(path), sum(p[1] for p in path) / len(path))
        found["radius"].append(sum(haversine_km(p, mean) for p in path) / len(path))
        found["step"] += [(b - a) / 60 for a, b in pairwise(times)]
        found["duration"].append((times[-1] - times[0]) / 60)
    return found


def visits(trips: Trips, roads: int) -> list[int]:
    counts = [0] * roads
    for road in trips.roads.tolist():
        counts[road] += 1
    return counts


def global_metrics(generated: Trips, real: Trips, centres: Path) -> list[float]:
    """Divergences of distance, radius, step duration, trip duration and road visits."""
    mine, theirs = measures(generated, centres), measures(real, centres)
    found = []
    for name, values in theirs.items():
        greatest = max(values)
        found.append(divergence(histogram(mine[name], greatest), histogram(values, greatest)))
    return [*found, divergence(visits(generated, len(centres)), visits(real, len(centres)))]
