"""Prepares a HOSER data folder once: checks it, derives what it lacks, and caches it by content.

The data folder is only ever read. A prepared set lies in `CACHE/<fingerprint>` and appears there whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trainer.data.city import (
    FORMAT,
    SPLITS,
    City,
    Meta,
    load_city,
    make_city,
    save_city,
    step_time_statistics,
)
from trainer.data.roadmap import Ints, RoadMap, read_road_map
from trainer.data.trip_files import Map, read_trips
from trainer.data.trips import Trips
from trainer.data.zones import partition, read_partition, read_transition_counts, transition_counts
from trainer.errors import BadInput
from trainer.files import only_one

PARTITION = "road_network_partition"
TRANSITIONS = "zone_trans_mat.npy"
REQUIRED = ("roadmap.geo", "roadmap.rel", "train.csv", "val.csv", "test.csv")


def default_cache() -> Path:
    """Where prepared data goes unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hoser-distill"


@dataclass(frozen=True)
class Prepared:
    """A prepared data set, where it lies, and whether this call made it."""

    city: City
    folder: Path
    fresh: bool


def prepare(data: Path, cache: Path | None = None, skip_bad: bool = False, spread: Map = map) -> Prepared:
    """The prepared form of a data folder; made on the first call, only opened on later ones.

    `spread` checks the trips. Raises BadInput or BadLine before anything is written.
    """
    fingerprint = fingerprint_of(data, skip_bad)
    root = cache or default_cache()
    folder = root / fingerprint[:16]
    if folder.is_dir():
        return Prepared(load_city(folder), folder, fresh=False)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with only_one(root / f"{folder.name}.lock"):
            fresh = not folder.is_dir()
            if fresh:
                _build(data, folder, fingerprint, skip_bad, spread)
    except OSError as error:
        raise BadInput(
            f"{root}: cannot write the cache here ({error.strerror}); name another folder with --cache"
        ) from None
    return Prepared(load_city(folder), folder, fresh)


def fingerprint_of(data: Path, skip_bad: bool) -> str:
    """SHA-256 over names and contents of the data folder's files; the same data has the same one anywhere."""
    if not data.is_dir():
        raise BadInput(f"{data}: no such folder; name a folder in HOSER format")
    total = hashlib.sha256(f"format {FORMAT}, skip_bad {skip_bad}".encode())
    for name in (*REQUIRED, PARTITION, TRANSITIONS):
        file = data / name
        if file.is_file():
            with file.open("rb") as stream:
                total.update(f"\n{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
        elif name in REQUIRED:
            raise BadInput(f"{file}: no such file; a HOSER data folder needs {', '.join(REQUIRED)}")
    return total.hexdigest()


def _build(data: Path, folder: Path, fingerprint: str, skip_bad: bool, spread: Map) -> None:
    partial = folder.with_suffix(".partial")
    city = read_city(data, fingerprint, skip_bad, spread)
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left; we hold the lock
    partial.mkdir()
    try:
        save_city(city, partial)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_city(data: Path, fingerprint: str, skip_bad: bool, spread: Map = map) -> City:
    """Reads, checks and derives; writes nothing."""
    road_map, classes = read_road_map(data)
    read = {split: read_trips(data / f"{split}.csv", road_map, skip_bad, spread) for split in SPLITS}
    trips = {split: found for split, (found, _) in read.items()}
    zones, zone_source = _zones(data, road_map)
    transitions, transition_source = _transitions(data, zones, trips["train"])
    mean, std = step_time_statistics(trips["train"])
    dropped: dict[str, Counter[str]] = {split: counts for split, (_, counts) in read.items()}
    meta = Meta(
        fingerprint=fingerprint,
        classes=classes,
        log1p_mean=mean,
        log1p_std=std,
        partition=zone_source,
        transitions=transition_source,
        dropped={split: dict(counts) for split, counts in dropped.items()},
    )
    return make_city(road_map, meta, zones, transitions, trips)


def _zones(data: Path, road_map: RoadMap) -> tuple[Ints, str]:
    if (data / PARTITION).is_file():
        return read_partition(data / PARTITION, road_map.roads), "provided"
    return partition(road_map), "derived"


def _transitions(data: Path, zones: Ints, train: Trips) -> tuple[Ints, str]:
    count = int(zones.max()) + 1
    if (data / TRANSITIONS).is_file():
        return read_transition_counts(data / TRANSITIONS, count), "provided"
    return transition_counts(train, zones, count), "derived"
