"""Generated trips on disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.datasets import rows_of
from trainer.errors import BadInput, BadLine
from trainer.generate.demand import Demand
from trainer.generate.output import check_target, write_generated
from trainer.generate.reading import read_generated
from trainer.generate.route import Path as RoadPath
from trainer.generate.route import Route

START = 1_211_079_838
HEADER = "destination_road_id,gene_trace_road_id,gene_trace_datetime\n"
T0, T1 = "2008-05-18T03:03:58Z", "2008-05-18T03:04:08Z"


def routes() -> tuple[Demand, list[Route]]:
    demand = Demand(np.array([3, 1]), np.array([5, 9]), np.array([START, 0]), np.array([7, 0]))
    found = [
        Route(RoadPath((3, 4, 5), (START, START + 10, START + 30), -1.25), True, 8),
        Route(RoadPath((1,), (0,), 0.0), False, 1),
    ]
    return demand, found


def test_columns_are_those_of_the_research_code(tmp_path: Path) -> None:
    write_generated(tmp_path / "trips.csv", *routes(), {"seed": 3})
    first, second = rows_of(tmp_path / "trips.csv")
    assert first == {
        "origin_road_id": "3",
        "destination_road_id": "5",
        "source_index": "7",
        "source_origin_time": T0,
        "gene_trace_road_id": "[3, 4, 5]",
        "gene_trace_datetime": f'["{T0}", "{T1}", "2008-05-18T03:04:28Z"]',
        "reached": "True",
        "log_prob": "-1.250000",
    }
    assert (second["gene_trace_road_id"], second["reached"]) == ("[1]", "False")
    assert json.loads((tmp_path / "trips.json").read_text()) == {"seed": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trips.csv", "trips.json"]


def test_read_back(tmp_path: Path) -> None:
    demand, found = routes()
    write_generated(tmp_path / "trips.csv", demand, found, {})
    again = read_generated(tmp_path / "trips.csv", roads=10)
    assert again.destinations.tolist() == [5, 9]
    for i, route in enumerate(found):
        assert again.trips.roads_of(i).tolist() == list(route.path.roads)
        assert again.trips.times_of(i).tolist() == list(route.path.times)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f'5,"[1, 2]","[""{T0}""]"', "not a trip: '2 roads, 1 times'"),
        ('5,"[]","[]"', "not a trip: '0 roads, 0 times'"),
        (f'5,"1, 2","[""{T0}"", ""{T1}""]"', "not a JSON list of int: '1, 2'"),
        (f'5,"[1, 2.0]","[""{T0}"", ""{T1}""]"', "not a JSON list of int: '[1, 2.0]'"),
        (f'5,"[true, 2]","[""{T0}"", ""{T1}""]"', "not a JSON list of int: '[true, 2]'"),
        (f'5,"{"[" * 9000}","[""{T0}"", ""{T1}""]"', "not a JSON list of int: '[[["),
        ('5,"[1, 2]","[1, 2]"', "not a JSON list of str: '[1, 2]'"),
        (f'5,"[1, 2]","[""{T0}"", ""noon""]"', "not YYYY-MM-DDTHH:MM:SSZ: 'noon'"),
        (f'5,"[1, 2]","[""{T1}"", ""{T0}""]"', f"time goes back: '{T0}'"),
        (f'5,"[1, 10]","[""{T0}"", ""{T1}""]"', "unknown road id (roadmap.geo has 0..9): '10'"),
        (f'5,"[-1, 1]","[""{T0}"", ""{T1}""]"', "unknown road id (roadmap.geo has 0..9): '-1'"),
        (f'10,"[1]","[""{T0}""]"', "destination_road_id: unknown road id (roadmap.geo has 0..9): '10'"),
        (f'{"9" * 30},"[1]","[""{T0}""]"', "destination_road_id: unknown road id (roadmap.geo has 0..9): '9999"),
        (f'home,"[1]","[""{T0}""]"', "destination_road_id: road id is not an integer: 'home'"),
        ('5,"[1]"', "too few fields: '5,[1]'"),
    ],
)
def test_bad_rows(row: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    file.write_text(f'{HEADER}5,"[1]","[""{T0}""]"\n{row}\n')
    with pytest.raises(BadLine) as caught:
        read_generated(file, roads=10)
    assert str(caught.value).startswith(f"{file}:3: {said}")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"trips\.csv: no such file$"):
        read_generated(tmp_path / "trips.csv", 10)
    for content, said in ((HEADER, "holds no trip"), ("a\n1\n", "missing column"), ("", "missing column")):
        (tmp_path / "trips.csv").write_text(content)
        with pytest.raises(BadInput, match=said):
            read_generated(tmp_path / "trips.csv", 10)


def test_targets_that_could_not_be_written_are_refused_early(tmp_path: Path) -> None:
    check_target(tmp_path / "trips.csv")
    for bad in (tmp_path / "trips.json", tmp_path, tmp_path / "none" / "trips.csv"):
        with pytest.raises(BadInput, match="name another --out") as caught:
            check_target(bad)
        assert str(caught.value).startswith(f"{bad}: ")
