"""Traffic zones: a balanced partition of the road network, and how often trips cross from zone to zone.

R roads, Z zones.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from trainer.data.roadmap import RoadMap, whole_number
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, BadLine

MAX_ZONES = 300
MAX_PROVIDED_ZONES = 10_000  # the transition counts are a dense matrix
MAX_TOTAL = 2**53  # of transition counts: all sums are exact
ROADS_PER_ZONE = 40
IMBALANCE = 0.03
KAFFPA_STRONG = 2


def zone_count(roads: int) -> int:
    """k = min(300, ceil(roads / 40))."""
    return min(MAX_ZONES, math.ceil(roads / ROADS_PER_ZONE))


def partition(road_map: RoadMap) -> Ints:
    """Zone of each road, [R]: KaHIP kaffpa, mode strong, seed 0, on the undirected graph of the relations."""
    k = zone_count(road_map.roads)
    if k == 1:
        return np.zeros(road_map.roads, np.int64)
    graph = _undirected(road_map)
    import kahip  # a compiled library that only this step needs

    with _stdout_closed():
        _, blocks = kahip.kaffpa(
            [1] * road_map.roads,
            graph.indptr.tolist(),
            [1] * graph.nnz,
            graph.indices.tolist(),
            k,
            IMBALANCE,
            True,
            0,
            KAFFPA_STRONG,
        )
    return np.asarray(blocks, dtype=np.int64)


def _undirected(road_map: RoadMap) -> sparse.csr_array:
    origins = np.repeat(np.arange(road_map.roads), np.diff(road_map.successor_offsets))
    shape = (road_map.roads, road_map.roads)
    directed = sparse.csr_array((np.ones(len(origins)), (origins, road_map.successors)), shape=shape)
    graph = sparse.csr_array(directed + directed.T)
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


@contextlib.contextmanager
def _stdout_closed():  # type: ignore[no-untyped-def]
    """The partitioner writes to file descriptor 1 even when told not to."""
    saved, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)


def read_partition(file: Path, roads: int) -> Ints:
    """Zone ids of a `road_network_partition` file, one a line, [R]. Raises BadInput or BadLine."""
    zones: list[int] = []
    most = min(roads, MAX_PROVIDED_ZONES) - 1
    text = file.read_text(encoding="utf-8-sig", errors="replace").rstrip()
    for number, line in enumerate(text.splitlines(), start=1):
        zone = whole_number(line)
        if zone is None or not 0 <= zone <= most:
            raise BadLine(file, number, f"zone id must be an integer from 0 to {most}", line)
        zones.append(zone)
    if len(zones) != roads:
        raise BadInput(f"{file}: holds {len(zones)} zone ids, but roadmap.geo has {roads} roads")
    return np.asarray(zones, dtype=np.int64)


def transition_counts(trips: Trips, zone_of_road: Ints, zones: int) -> Ints:
    """Changes of zone between consecutive roads of trips, [Z, Z], zero diagonal."""
    zone = zone_of_road[trips.roads]
    same_trip = np.ones(len(zone) - 1, dtype=bool)
    same_trip[trips.offsets[1:-1] - 1] = False
    pairs = (zone[:-1] * zones + zone[1:])[same_trip]
    counts = np.bincount(pairs, minlength=zones * zones).reshape(zones, zones)
    np.fill_diagonal(counts, 0)
    return counts


def read_transition_counts(file: Path, zones: int) -> Ints:
    """A `zone_trans_mat.npy` file, [Z, Z] int64. Raises BadInput."""
    try:
        counts: NDArray[np.int64] = np.lib.format.open_memmap(file, mode="r")  # never unpickles, never allocates
    except Exception as error:  # NumPy lets errors of the tokenizer, the parser and mmap through
        raise BadInput(f"{file}: not a NumPy array file ({' '.join(str(error).split())})") from None
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] < zones:
        raise BadInput(f"{file}: has shape {counts.shape}, but the partition has {zones} zones")
    if counts.shape[0] > MAX_PROVIDED_ZONES:
        raise BadInput(f"{file}: has shape {counts.shape}, but there may be {MAX_PROVIDED_ZONES} zones at most")
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise BadInput(f"{file}: must hold counts (integers, zero or more), not {counts.dtype}")
    if (total := counts.sum(dtype=np.float64)) > MAX_TOTAL:
        raise BadInput(f"{file}: holds {total:.3g} zone changes, but there may be {MAX_TOTAL} at most")
    if (stays := np.flatnonzero(counts.diagonal())).size:
        raise BadInput(f"{file}: counts changes from zone {stays[0]} to itself; the diagonal must be zero")
    return counts.astype(np.int64)


def zone_graph(counts: Ints) -> tuple[Ints, NDArray[np.float32]]:
    """Edges [2, E_z] and weights M_ij D_i^-1/2 D_j^-1/2, D = max(row sum, 1), of the nonzero counts M."""
    degree = np.maximum(counts.sum(axis=1), 1).astype(np.float64)
    i, j = np.nonzero(counts)
    weight = counts[i, j] / np.sqrt(degree[i] * degree[j])
    return np.stack([i, j]), weight.astype(np.float32)
