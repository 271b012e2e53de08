"""`trainer sample-city`: writes a HOSER-format data set of an invented city, made on the spot from a seed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from trainer.data.sample_demand import make_demand
from trainer.data.sample_network import SampleNetwork, make_network
from trainer.data.sample_routes import make_trips
from trainer.data.sample_streets import CLASSES
from trainer.data.trips import Trips
from trainer.errors import BadInput

FEWEST_ROADS_OF_CITY, FEWEST_TRIPS = 50, 10
MOST_ROADS_OF_CITY, MOST_TRIPS = 1_000_000, 10_000_000
SPLITS = (("train", 0.7), ("val", 0.8), ("test", 1.0))  # with the share of trips up to the split's end
DRAFT = ".partial"
TRIPS_PER_CHUNK = 5_000
TRIPS_PER_TAXI = 50
GEO_HEADER = "geo_id,type,coordinates,highway,lanes,tunnel,bridge,roundabout,oneway,length,maxspeed,u,v"
REL_HEADER = "rel_id,type,origin_id,destination_id"
TRIP_HEADER = "mm_id,user_id,traj_id,rid_list,time_list"

# By class, in the order of sample_streets.CLASSES.
LANES = (3, 3, 2, 2, 1, 1, 1)
MAX_SPEED_KMH = (70, 50, 50, 50, 50, 30, 10)


@dataclass(frozen=True)
class SampleCitySummary:
    """What was written."""

    folder: Path
    roads: int
    relations: int
    trips: int
    median_roads: float  # roads of a trip
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.roads} roads, {self.relations} relations, {self.trips} trips "
            f"(median {self.median_roads:g} roads), {self.seconds:.1f} s"
        )


def sample_city_command(
    out: Annotated[Path, typer.Option("--out", help="Folder to make; it must not exist yet, or be empty.")],
    roads: Annotated[int, typer.Option("--roads", help="Directed roads, about.")] = 1200,
    trips: Annotated[int, typer.Option("--trips", help="Trips: 70 % train, 10 % val, 20 % test.")] = 3000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same city.")] = 0,
) -> None:
    """Make a data set of an invented city: streets, taxi demand, routes and times."""
    print(write_sample_city(out, roads=roads, trips=trips, seed=seed))


def write_sample_city(folder: Path, *, roads: int = 1200, trips: int = 3000, seed: int = 0) -> SampleCitySummary:
    """Makes a city of about `roads` directed roads and exactly `trips` trips, and writes it in HOSER format.

    The network is strongly connected. Trips are split by start time, 70/10/20. All of it follows from the
    arguments. `folder` appears when it is complete. Raises BadInput.
    """
    _check(folder, roads, trips, seed)
    started = time.monotonic()
    streets_rng, demand_rng, trips_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    with _new_folder(folder) as draft:
        network = make_network(roads, streets_rng)
        _write_network(draft, network)
        made = make_trips(network, make_demand(network, demand_rng), trips, trips_rng)
        _write_splits(draft, made, trips_rng)
    return SampleCitySummary(
        folder,
        network.roads,
        len(network.relations),
        len(made),
        float(np.median(made.lengths)),
        time.monotonic() - started,
    )


def _check(folder: Path, roads: int, trips: int, seed: int) -> None:
    if not FEWEST_ROADS_OF_CITY <= roads <= MOST_ROADS_OF_CITY:
        raise BadInput(f"--roads {roads}: a sample city has {FEWEST_ROADS_OF_CITY} to {MOST_ROADS_OF_CITY} roads")
    if not FEWEST_TRIPS <= trips <= MOST_TRIPS:
        raise BadInput(f"--trips {trips}: a sample city has {FEWEST_TRIPS} to {MOST_TRIPS} trips")
    if seed < 0:
        raise BadInput(f"--seed {seed}: a seed is zero or more")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file; give a new folder as --out")
    if folder.is_dir() and any(path.name != DRAFT for path in folder.iterdir()):
        raise BadInput(f"{folder}: is not empty; give a new folder as --out, or delete this one first")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when all went well, and goes when not.

    An empty folder may be the mount point of a volume, which nothing can take the place of: it is filled.
    """
    folder = folder.resolve()  # `.` has no name to put a folder beside it
    fill = folder.is_dir()
    draft = folder / DRAFT if fill else folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(draft, ignore_errors=True)  # what a killed run left
        draft.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be made ({error.strerror}); give another folder as --out") from None
    try:
        yield draft
        for source in sorted(draft.iterdir()) if fill else ():
            os.replace(source, folder / source.name)
        if not fill:
            os.replace(draft, folder)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_network(folder: Path, network: SampleNetwork) -> None:
    with (folder / "roadmap.geo").open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"{GEO_HEADER}\n")
        geo = csv.writer(stream, lineterminator="\n")
        geo.writerows(_geo_row(network, road) for road in range(network.roads))
    with (folder / "roadmap.rel").open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"{REL_HEADER}\n")
        rel = csv.writer(stream, lineterminator="\n")
        rel.writerows([i, "geo", a, b] for i, (a, b) in enumerate(network.relations.tolist()))


def _geo_row(network: SampleNetwork, road: int) -> list[object]:
    level = int(network.level[road])
    start, end = network.ends[road].tolist()
    coordinates = json.dumps(network.polylines[road].tolist(), separators=(",", ":"))
    one_way, bridge = int(network.one_way[road]), int(network.bridge[road])
    length = f"{network.length_m[road]:.3f}"
    lanes, speed = LANES[level], MAX_SPEED_KMH[level]
    return [
        road,
        "LineString",
        coordinates,
        CLASSES[level],
        lanes,
        0,
        bridge,
        0,
        one_way,
        length,
        speed,
        start,
        end,
    ]


def _write_splits(folder: Path, trips: Trips, rng: np.random.Generator) -> None:
    taxis = rng.integers(0, max(1, len(trips) // TRIPS_PER_TAXI), len(trips))
    first = 0
    with tqdm(total=len(trips), desc="write trips", unit=" trips", leave=False, disable=None) as bar:
        for name, share in SPLITS:
            end = round(share * len(trips))
            with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
                stream.write(f"{TRIP_HEADER}\n")
                rows = csv.writer(stream, lineterminator="\n")
                for chunk in range(first, end, TRIPS_PER_CHUNK):
                    stop = min(chunk + TRIPS_PER_CHUNK, end)
                    rows.writerows(_trip_rows(trips, taxis[chunk:stop].tolist(), chunk))
                    bar.update(stop - chunk)
            first = end


def _trip_rows(trips: Trips, taxis: list[int], first: int) -> Iterator[list[object]]:
    """CSV rows of the trips `first`, `first + 1`, ..., as many as there are taxis."""
    offsets = trips.offsets[first : first + len(taxis) + 1].tolist()
    points = slice(offsets[0], offsets[-1])
    roads = [str(road) for road in trips.roads[points].tolist()]
    times = [f"{stamp}Z" for stamp in np.datetime_as_string(trips.times[points].astype("datetime64[s]")).tolist()]
    for place, taxi in enumerate(taxis):
        start, end = offsets[place] - offsets[0], offsets[place + 1] - offsets[0]
        rid_list = f"[{', '.join(roads[start:end])}]"
        yield [first + place, taxi, first + place, rid_list, ",".join(times[start:end])]
