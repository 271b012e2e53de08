"""A prepared data set: everything that training needs, as memory-mapped arrays in a cache folder.

R roads, E touching pairs of roads, Z zones, E_z zone pairs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.road_graph import road_edges
from trainer.data.roadmap import Ints, RoadMap
from trainer.data.trips import Trips
from trainer.data.zones import zone_graph
from trainer.errors import BadInput

SPLITS = ("train", "val", "test")
FORMAT = 1


@dataclass(frozen=True)
class Meta:
    """What is known of a prepared data set beside its arrays."""

    fingerprint: str  # SHA-256 of the input files
    classes: tuple[str, ...]  # highway classes in class-id order
    log1p_mean: float  # of log1p(seconds) over all train steps
    log1p_std: float  # population standard deviation of the same
    partition: str  # "provided" or "derived"
    transitions: str  # "provided" or "derived"
    dropped: dict[str, dict[str, int]]  # bad trips by split and kind
    format: int = FORMAT


@dataclass(frozen=True)
class City:
    """Road map, zones and trips of one data set."""

    meta: Meta
    road_map: RoadMap
    edge_index: Ints  # [2, E]
    edge_attr: NDArray[np.float32]  # [E, 2]
    zone_of_road: Ints  # [R]
    transitions: Ints  # [Z, Z]
    trips: dict[str, Trips]  # by split

    @property
    def zones(self) -> int:
        return len(self.transitions)

    def zone_graph(self) -> tuple[Ints, NDArray[np.float32]]:
        return zone_graph(self.transitions)


def step_time_statistics(trips: Trips) -> tuple[float, float]:
    """Mean and population standard deviation of log1p(seconds) over all steps of trips."""
    inner = np.ones(len(trips.times) - 1, dtype=bool)
    inner[trips.offsets[1:-1] - 1] = False
    logs = np.log1p(np.diff(trips.times)[inner].astype(np.float64))
    return float(logs.mean()), float(max(logs.std(), 1e-12))


def make_city(road_map: RoadMap, meta: Meta, zone_of_road: Ints, transitions: Ints, trips: dict[str, Trips]) -> City:
    """Derives the road graph and puts the parts together."""
    edge_index, edge_attr = road_edges(road_map)
    return City(meta, road_map, edge_index, edge_attr, zone_of_road, transitions, trips)


def save_city(city: City, folder: Path) -> None:
    """Writes all arrays and `meta.json` into an existing, private folder."""
    for name, array in _arrays(city).items():
        np.save(folder / f"{name}.npy", array)
    (folder / "meta.json").write_text(json.dumps(asdict(city.meta), indent=1))


def load_city(folder: Path) -> City:
    """Opens a prepared data set; arrays stay on disk until they are touched. Raises BadInput."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        meta["classes"] = tuple(meta["classes"])

        def array(name: str) -> NDArray[Any]:
            return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

        road_map = RoadMap(**{f.name: array(f"road_map.{f.name}") for f in fields(RoadMap)})
        trips = {s: Trips(**{f.name: array(f"{s}.{f.name}") for f in fields(Trips)}) for s in SPLITS}
        named = {n: array(n) for n in ("edge_index", "edge_attr", "zone_of_road", "transitions")}
        return City(meta=Meta(**meta), road_map=road_map, trips=trips, **named)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder}: not a prepared data set ({error}); delete this folder and prepare again") from None


def _arrays(city: City) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        n: getattr(city, n) for n in ("edge_index", "edge_attr", "zone_of_road", "transitions")
    }
    arrays |= {f"road_map.{f.name}": getattr(city.road_map, f.name) for f in fields(RoadMap)}
    for split, trips in city.trips.items():
        arrays |= {f"{split}.{f.name}": getattr(trips, f.name) for f in fields(Trips)}
    return arrays
