"""Zones: partition files, transition counts against loops, and the zone graph's weights."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import kahip
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import random_map, road_map_of, rows_of, small_city, trips_of
from trainer.data.roadmap import read_road_map
from trainer.data.zones import (
    partition,
    read_partition,
    read_transition_counts,
    transition_counts,
    zone_count,
    zone_graph,
)
from trainer.errors import BadInput, BadLine

ragged = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(deadline=None, max_examples=100, database=None)
@given(ragged, st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_transition_counts_against_loops(road_lists: list[list[int]], zone_of_road: list[int]) -> None:
    expected = np.zeros((5, 5), np.int64)
    for roads in road_lists:
        for a, b in pairwise(zone_of_road[road] for road in roads):
            expected[a, b] += a != b
    trips = trips_of(road_lists, [[0] * len(roads) for roads in road_lists])
    found = transition_counts(trips, np.array(zone_of_road), 5)
    assert found.dtype == np.int64
    assert np.array_equal(found, expected)


@settings(deadline=None, max_examples=60, database=None)
@given(st.lists(st.lists(st.sampled_from([0, 0, 1, 7, 900]), min_size=4, max_size=4), min_size=4, max_size=4))
def test_zone_graph_weights(counts: list[list[int]]) -> None:
    degree = [max(sum(row), 1) for row in counts]
    edges, weights = zone_graph(np.array(counts))
    expected = {
        (i, j): counts[i][j] / math.sqrt(degree[i]) / math.sqrt(degree[j])
        for i in range(4)
        for j in range(4)
        if counts[i][j]
    }
    assert list(map(tuple, edges.T.tolist())) == list(expected)
    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx(list(expected.values()), rel=1e-6)


@pytest.mark.parametrize(
    ("roads", "zones"), [(1, 1), (40, 1), (41, 2), (1677, 42), (11_024, 276), (12_000, 300), (40_060, 300)]
)
def test_zone_count(roads: int, zones: int) -> None:
    assert zone_count(roads) == zones


def test_a_derived_partition_is_balanced_and_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    road_map, _ = read_road_map(small_city(tmp_path / "city", roads=400, trips=20))
    zones = partition(road_map)
    assert capfd.readouterr() == ("", "")
    assert zones.shape == (road_map.roads,)
    sizes = np.bincount(zones, minlength=zone_count(road_map.roads))
    assert len(sizes) == 11
    assert sizes.max() <= math.floor(1.03 * math.ceil(road_map.roads / 11))
    assert np.array_equal(partition(road_map), zones)


def test_zones_are_places(tmp_path: Path) -> None:
    """Far fewer relations cross zones than a shuffle of the same sizes would make cross."""
    road_map, _ = read_road_map(small_city(tmp_path / "city", roads=400, trips=20))
    origins = np.repeat(np.arange(road_map.roads), np.diff(road_map.successor_offsets))
    zones = partition(road_map)
    shuffled = np.random.default_rng(0).permutation(zones)
    crossing = (zones[origins] != zones[road_map.successors]).mean()
    assert crossing < 0.4 * (shuffled[origins] != shuffled[road_map.successors]).mean()


def test_a_map_of_one_zone_and_one_of_unconnected_roads() -> None:
    assert partition(random_map(np.random.default_rng(0), 40, 80)[0]).tolist() == [0] * 40
    lines = [[(float(i), 0.0), (float(i), 0.5)] for i in range(90)]
    zones = partition(road_map_of(lines, [(0, 0), (1, 2), (1, 2)])[0])
    assert zones.shape == (90,)
    assert set(zones.tolist()) <= {0, 1, 2}


def test_a_damaged_matrix_is_refused_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    """Any bytes give either an array or BadInput: NumPy itself raises half a dozen kinds of errors here."""
    file = tmp_path / "zone_trans_mat.npy"
    np.save(file, np.array([[0, 3], [4, 0]]))
    whole = file.read_bytes()
    assert read_transition_counts(file, 2).tolist() == [[0, 3], [4, 0]]
    rng = np.random.default_rng(0)
    refusals: list[str] = []
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 5)):
            damaged[place] = rng.integers(0, 256)
        file.write_bytes(damaged[: rng.integers(1, len(whole) + 1)])
        try:
            assert read_transition_counts(file, 2).shape >= (2, 2)
        except BadInput as error:
            refusals.append(str(error))
    assert len(refusals) > 300
    assert all(text.startswith(f"{file}: ") and "\n" not in text for text in refusals)


def test_the_partition_is_the_one_of_the_contract(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """kaffpa, mode strong (2), seed 0, 3 %, on the undirected graph without loops, each neighbour once."""
    folder = small_city(tmp_path / "city", roads=400, trips=20)
    neighbours: dict[int, set[int]] = {road: set() for road in range(len(rows_of(folder / "roadmap.geo")))}
    for row in rows_of(folder / "roadmap.rel"):
        a, b = int(row["origin_id"]), int(row["destination_id"])
        if a != b:
            neighbours[a].add(b)
            neighbours[b].add(a)
    starts = np.concatenate([[0], np.cumsum([len(near) for near in neighbours.values()])]).tolist()
    ends = [b for near in neighbours.values() for b in sorted(near)]
    weights = [1] * len(neighbours), [1] * len(ends)

    def blocks(seed: int) -> list[int]:
        return list(kahip.kaffpa(weights[0], starts, weights[1], ends, 11, 0.03, True, seed, 2)[1])

    expected, other = blocks(0), blocks(1)
    capfd.readouterr()
    assert partition(read_road_map(folder)[0]).tolist() == expected != other


@pytest.mark.parametrize("text", ["0\n2\n1", "0\n2\n1\n", "\ufeff0\r\n2\r\n1\r\n\r\n", " 0\n2 \n1\n\n \n"])
def test_partition_files_as_editors_leave_them(text: str, tmp_path: Path) -> None:
    """With a byte order mark, with blank lines at the end."""
    (tmp_path / "road_network_partition").write_text(text, encoding="utf-8", newline="")
    assert read_partition(tmp_path / "road_network_partition", 3).tolist() == [0, 2, 1]


def test_a_single_high_zone_makes_no_huge_matrix(tmp_path: Path) -> None:
    """The map has 40,060 roads, so the id would be one of a road; 40,060 squared counts are 12.8 GB."""
    file = tmp_path / "road_network_partition"
    file.write_text("9999\n" * 40_059 + "10000\n")
    with pytest.raises(BadLine, match="zone id must be an integer from 0 to 9999: '10000'") as caught:
        read_partition(file, 40_060)
    assert (caught.value.file, caught.value.line) == (file, 40_060)
    file.write_text("9999\n" * 40_060)
    assert read_partition(file, 40_060).max() == 9999


def test_a_huge_matrix_is_refused_unread(tmp_path: Path) -> None:
    """A file with holes in place of 1.2 GB of zeros: only its header may be looked at."""
    file = tmp_path / "zone_trans_mat.npy"
    with file.open("wb") as stream:
        header = {"descr": "<i8", "fortran_order": False, "shape": (12_000, 12_000)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + 8 * 12_000**2)
    with pytest.raises(BadInput, match="there may be 10000 zones at most"):
        read_transition_counts(file, 3)


def test_the_matrix_may_have_more_zones_than_the_partition(tmp_path: Path) -> None:
    counts = np.array([[0, 2**52, 0], [7, 0, 1], [0, 0, 0]], np.uint64)
    np.save(tmp_path / "zone_trans_mat.npy", counts)
    found = read_transition_counts(tmp_path / "zone_trans_mat.npy", 2)
    assert found.dtype == np.int64
    assert found.tolist() == counts.tolist()
