"""What to generate: drawn in proportion to real trips, or read from a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.datasets import trips_of
from trainer.data.trip_text import parse_time
from trainer.errors import BadInput, BadLine
from trainer.generate.demand import draw_demand, read_demand

HEADER = "destination_road_id,source_origin_time,origin_road_id\n"
TIME = "2008-05-17T03:03:58Z"


def test_pairs_come_in_proportion_and_with_their_own_times() -> None:
    road_lists = [[1, 2, 3], [1, 3], [4, 5], [1, 2, 3]]
    trips = trips_of(road_lists, [[100 * i + j for j in range(len(roads))] for i, roads in enumerate(road_lists)])
    for count in (1, 3, 4, 5, 40, 41):
        found = draw_demand(trips, count, seed=1)
        assert len(found) == count
        used = Counter(found.sources.tolist())
        assert max(used.values()) - min(used.get(i, 0) for i in range(4)) <= 1
        for i in range(count):
            roads = road_lists[found.sources[i]]
            assert (found.origins[i], found.destinations[i]) == (roads[0], roads[-1])
            assert found.starts[i] == 100 * found.sources[i]


def test_the_draw_follows_the_seed() -> None:
    trips = trips_of([[i, i + 1] for i in range(50)], [[0, 1]] * 50)
    draws = [tuple(draw_demand(trips, 50, seed).sources.tolist()) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    with pytest.raises(BadInput, match="at least 1, not 0"):
        draw_demand(trips, 0, 1)


def test_a_file_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "od.csv").write_text(f"{HEADER}3,{TIME},1\n0, {TIME} , 2 \n")
    found = read_demand(tmp_path / "od.csv", roads=4)
    assert found.origins.tolist() == [1, 2]
    assert found.destinations.tolist() == [3, 0]
    assert found.starts.tolist() == [parse_time(TIME)] * 2
    assert found.sources.tolist() == [0, 1]
    assert found.origins.dtype == np.int64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{HEADER}3,{TIME},4\n", "od.csv:2: origin_road_id: unknown road id (roadmap.geo has 0..3): '4'"),
        (f"{HEADER}-1,{TIME},1\n", "od.csv:2: destination_road_id: unknown road id (roadmap.geo has 0..3): '-1'"),
        (f"{HEADER}3,{TIME},1\nx,{TIME},1\n", "od.csv:3: destination_road_id: road id is not an integer: 'x'"),
        (f"{HEADER}{'9' * 5000},{TIME},1\n", "od.csv:2: destination_road_id: road id is not an integer: '999"),
        (f"{HEADER}3,noon,1\n", "od.csv:2: source_origin_time is not YYYY-MM-DDTHH:MM:SSZ: 'noon'"),
        (f'{HEADER}3,"{TIME},{TIME}",1\n', "od.csv:2: source_origin_time is not"),
        (f"{HEADER}3\n", "od.csv:2: too few fields: '3'"),
        (HEADER, "od.csv: holds no origin and destination"),
        ("a,b\n1,2\n", "od.csv:1: missing column(s) origin_road_id, destination_road_id, source_origin_time: 'a,b'"),
        ("", "od.csv:1: missing column(s)"),
    ],
)
def test_bad_files(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "od.csv").write_text(content)
    with pytest.raises((BadInput, BadLine)) as caught:
        read_demand(tmp_path / "od.csv", roads=4)
    assert str(caught.value).startswith(f"{tmp_path}/{said}")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.csv: no such file$"):
        read_demand(tmp_path / "none.csv", roads=4)
