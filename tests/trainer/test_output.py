"""Generated trips on disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.teacher_server.full_disk import files_end_at
from tests.trainer.datasets import files_in, rows_of
from trainer.errors import BadInput, CannotWrite
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


def test_new_trips_never_stand_beside_an_old_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, replace = tmp_path / "trips.csv", os.replace
    write_generated(file, *routes(), {"seed": 3})

    def fail(source: Path, target: Path) -> None:
        if Path(target).suffix == ".json":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    demand, found = routes()
    with pytest.raises(CannotWrite, match=r"trips\.json: cannot be written \(Input/output error\)"):
        write_generated(file, demand, found[::-1], {"seed": 4})
    assert rows_of(file)[0]["gene_trace_road_id"] == "[1]"
    assert [path.name for path in tmp_path.iterdir()] == ["trips.csv"]


def test_a_description_that_cannot_be_written_leaves_the_old_files(tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    write_generated(file, *routes(), {"seed": 3})
    before = files_in(tmp_path)
    with files_end_at(1000), pytest.raises(CannotWrite, match=r"trips\.json: cannot be written \(File too large\)"):
        write_generated(file, *routes(), {"seed": "4" * 2000})
    assert files_in(tmp_path) == before


def test_targets_that_could_not_be_written_are_refused_early(tmp_path: Path) -> None:
    check_target(tmp_path / "trips.csv")
    for bad in (tmp_path / "trips.json", tmp_path, tmp_path / "none" / "trips.csv"):
        with pytest.raises(BadInput, match="name another --out") as caught:
            check_target(bad)
        assert str(caught.value).startswith(f"{bad}: ")
