"""The tokens folder: the report against brute force, the files as `teacher fit` reads them, and the command."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_server.fit.tokens import open_tokens
from tests.serving import tiny_artifact
from tests.trainer.datasets import files_in, random_map, random_walks, refused, small_city, trainer
from trainer.data.city import SPLITS, City
from trainer.data.prepare import prepare
from trainer.grid import Grid, map_roads
from trainer.tokens import mapping_report, write_tokens


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_city(tmp_path / "city")


@pytest.fixture
def city(data: Path, tmp_path: Path) -> City:
    return prepare(data, tmp_path / "cache").city


@settings(deadline=None, max_examples=60, database=None)
@given(st.integers(0, 2**32), st.sampled_from([0.002, 0.01, 0.03, 1.0]))
def test_report_against_brute_force(seed: int, cell: float) -> None:
    rng = np.random.default_rng(seed)
    road_map, _, pairs = random_map(rng, 20, 45)
    trips = random_walks(rng, road_map, 5, 8)
    tokens = map_roads(Grid.over(road_map.points, cell), road_map.centres)
    report = mapping_report(tokens, road_map, trips)
    token = tokens.road_to_token.tolist()
    roads_in = Counter(token)
    assert report.roads == 20
    assert (report.clamped_roads, report.coverage) == (0, 1.0)
    assert report.cells == tokens.grid.rows * tokens.grid.columns
    assert report.occupied_cells == len(roads_in)
    assert report.roads_per_occupied_cell == pytest.approx(20 / len(roads_in))
    assert report.densest_cell_roads == max(roads_in.values())
    assert report.densest_cell == min(c for c, n in roads_in.items() if n == max(roads_in.values()))
    choices = tied = 0
    for i in range(len(trips)):
        for road, _ in pairwise(trips.roads_of(i).tolist()):
            cells = [token[b] for a, b in dict.fromkeys(pairs) if a == road]
            choices += len(cells) > 1
            tied += len(set(cells)) < len(cells)
    assert report.tied_steps == pytest.approx(tied / max(choices, 1))


def test_files_load_back(city: City, tmp_path: Path) -> None:
    tokens = map_roads(Grid.over(city.road_map.points, 0.0005), city.road_map.centres)
    report = write_tokens(tmp_path / "tokens", tokens, city)
    folder = open_tokens(tmp_path / "tokens")
    assert folder.vocab_size == tokens.grid.cells + 3
    assert (folder.special.pad, folder.special.eot, folder.special.sot) == tuple(
        tokens.grid.cells + i for i in range(3)
    )
    assert folder.data_fingerprint == city.meta.fingerprint
    described = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
    for split in SPLITS:
        trips, found = city.trips[split], folder.trips(split)
        assert len(found) == len(trips)
        for i in range(len(trips)):
            assert found[i].tolist() == [int(tokens.road_to_token[road]) for road in trips.roads_of(i)]
        assert described["splits"][split] == {"trips": len(trips), "tokens": len(trips.roads)}
    assert np.array_equal(np.load(tmp_path / "tokens" / "road_to_token.npy"), tokens.road_to_token)
    assert described["report"]["occupied_cells"] == report.occupied_cells
    assert Grid(**described["grid"]) == tokens.grid


def test_the_command(data: Path, tmp_path: Path) -> None:
    words = ("tokens", "--data", data, "--cache", tmp_path / "cache", "--out", tmp_path / "tokens")
    outcome = trainer(*words)
    assert outcome.status == 0, outcome.err
    assert re.fullmatch(
        r".*/tokens: \d+ x \d+ cells of 0\.0005 x 0\.0005 degrees, lat .*; \d+ of \d+ cells hold 120 roads \(.*, "
        r"at most \d+ in cell \d+\), coverage 100\.00% \(0 clamped\), \d+\.\d% of the steps with a choice have "
        r"candidates that share a cell\n",
        outcome.out,
    )
    first = files_in(tmp_path / "tokens")
    assert trainer(*words).out == outcome.out  # again: the same files in the same place
    assert {n: c for n, (c, _) in files_in(tmp_path / "tokens").items()} == {n: c for n, (c, _) in first.items()}
    coarser = trainer(*words, "--cell", "0.001", "--bounds", "49,51,9,11")
    assert "2001 x 2001 cells of 0.001 x 0.001 degrees" in coarser.out
    assert json.loads((tmp_path / "tokens" / "tokens.json").read_text())["grid"]["rows"] == 2001
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]


def test_into_the_current_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    outcome = trainer("tokens", "--data", data, "--cache", tmp_path / "cache", "--out", ".")
    assert outcome.status == 0, outcome.err
    assert open_tokens(tmp_path / "here").trips("train")[0].size > 0


@pytest.mark.slow
def test_the_grid_of_a_teacher(data: Path, city: City, tmp_path: Path) -> None:
    """A served teacher's grid is taken as it is."""
    from teacher_server.vocabulary import Grid as TeacherGrid

    ours = Grid.over(city.road_map.points, 0.002)
    fields = {name: getattr(ours, name) for name in ("min_lat", "max_lat", "min_lng", "max_lng", "rows", "columns")}
    tiny_artifact(tmp_path / "teacher", grid=TeacherGrid(cell_lat=0.002, cell_lng=0.002, **fields))
    words = ("tokens", "--data", data, "--cache", tmp_path / "cache", "--out", tmp_path / "tokens")
    outcome = trainer(*words, "--teacher", f"local:{tmp_path / 'teacher'}")
    assert outcome.status == 0, outcome.err
    assert Grid(**json.loads((tmp_path / "tokens" / "tokens.json").read_text())["grid"]) == ours


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--cell", "0"), "the cell size must be a positive number of degrees, not 0.0"),
        (("--cell", "nan"), "the cell size must be a positive number of degrees, not nan"),
        (("--cell", "1e-9"), "cells of 1e-09 degrees are too small"),
        (("--downsample", "0"), "downsample must be at least 1, not 0"),
        (("--bounds", "1,2,3"), "--bounds '1,2,3': must be MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG"),
        (("--bounds", "a,b,c,d"), "--bounds 'a,b,c,d': must be"),
        (("--bounds", ""), "--bounds '': must be"),
        (("--bounds", "3,2,1,4"), "bounds must be MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG with min < max"),
        (("--bounds", "0,1,0,1"), "120 of 120 roads lie outside"),
        (("--teacher", "uniform"), "--teacher uniform: has no grid"),
        (("--teacher", "uniform", "--cell", "0"), "--teacher brings its own grid"),
        (("--teacher", "ftp://x"), "teacher address 'ftp://x': must be local:FOLDER"),
    ],
)
def test_bad_flags(flags: tuple[str, ...], said: str, data: Path, tmp_path: Path) -> None:
    refused(trainer("tokens", "--data", data, "--cache", tmp_path / "c", "--out", tmp_path / "tokens", *flags), said)
    assert not (tmp_path / "tokens").exists()


def test_never_writes_over_anything_else(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    words = ("tokens", "--data", data, "--cache", tmp_path / "c", "--out")
    refused(trainer(*words, tmp_path / "thesis"), f"{tmp_path / 'thesis'}: exists and is no tokens folder")
    refused(trainer(*words, data / "train.csv"), f"{data / 'train.csv'}: exists and is no tokens folder")
    refused(trainer(*words, data / "train.csv" / "x"), f"{data / 'train.csv' / 'x'}: cannot write here")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"
