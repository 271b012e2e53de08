"""Generated trips on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.datasets import rows_of
from trainer.errors import BadInput
from trainer.generate.demand import Demand
from trainer.generate.output import check_target, write_generated
from trainer.generate.route import Path as RoadPath
from trainer.generate.route import Route

START = 1_211_079_838
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
        "expansions": "8",
    }
    assert (second["gene_trace_road_id"], second["reached"]) == ("[1]", "False")
    assert json.loads((tmp_path / "trips.json").read_text()) == {"seed": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trips.csv", "trips.json"]


def test_targets_that_could_not_be_written_are_refused_early(tmp_path: Path) -> None:
    check_target(tmp_path / "trips.csv")
    for bad in (tmp_path / "trips.json", tmp_path, tmp_path / "none" / "trips.csv"):
        with pytest.raises(BadInput, match="name another --out") as caught:
            check_target(bad)
        assert str(caught.value).startswith(f"{bad}: ")
