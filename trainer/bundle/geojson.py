"""Generated trips as GeoJSON (RFC 7946): a FeatureCollection with a LineString for every trip.

Positions are [longitude, latitude] in WGS 84 degrees, as the road map has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.roadmap import RoadMap
from trainer.data.trip_text import format_times
from trainer.errors import BadInput
from trainer.generate.reading import GeneratedTrip, generated_trips

DECIMALS = 7  # a centimetre


def collection(file: Path, road_map: RoadMap, expected: int | None) -> Iterator[str]:
    """The text in pieces, a feature a line. Features are in the order of the CSV's rows.

    Raises BadInput or BadLine, also where the CSV has not the expected number of trips.
    """
    written = 0
    yield '{"type": "FeatureCollection", "features": ['
    for trip in generated_trips(file, road_map):
        yield (",\n" if written else "\n") + json.dumps(feature(written, trip, road_map), allow_nan=False)
        written += 1
    yield "\n]}\n"
    if expected not in (None, written):
        raise BadInput(
            f"{file}: holds {written} trips, {file.with_suffix('.json').name} says {expected}: generate again"
        )


def feature(row: int, trip: GeneratedTrip, road_map: RoadMap) -> dict[str, Any]:
    """One trip; its properties have the CSV's names. `id` is the row, counted from 0."""
    times = format_times(np.asarray(trip.times))
    return {
        "type": "Feature",
        "id": row,
        "geometry": {"type": "LineString", "coordinates": coordinates(trip.roads, road_map)},
        "properties": {
            "origin_road_id": trip.roads[0],
            "destination_road_id": trip.destination,
            "start": times[0],
            "end": times[-1],
            "reached": trip.roads[-1] == trip.destination,
            "gene_trace_road_id": trip.roads,
            "gene_trace_datetime": times,
        },
    }


def coordinates(roads: list[int], road_map: RoadMap) -> list[list[float]]:
    """The polylines of roads as one, two or more [lng, lat]; a point that two roads share stands once."""
    offsets = road_map.point_offsets
    points = np.concatenate([road_map.points[offsets[road] : offsets[road + 1]] for road in roads]).round(DECIMALS)
    new = np.append(True, (points[1:] != points[:-1]).any(axis=1))
    if new.sum() == 1:
        new[-1] = True  # a LineString has two positions, even where a road has no length
    return list(points[new].tolist())
