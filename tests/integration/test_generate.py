"""Generation and evaluation with a trained student, through the command line."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.line import Line
from trainer.data.trip_text import parse_time
from trainer.generate.reading import read_generated
from trainer.generate.search import KINDS


def trainer(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_routes_follow_the_map(line: Line, plain_run: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"{kind}.csv"
    trainer(
        "generate", plain_run, "--cache", line.cache, "--out", out, "--count", "12", "--search", kind, "--seed", "3"
    )
    keys = set(line.city.road_map.relation_keys().tolist())
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    for row in rows:
        roads, times = json.loads(row["gene_trace_road_id"]), json.loads(row["gene_trace_datetime"])
        seconds = [parse_time(time) for time in times]
        assert roads[0] == int(row["origin_road_id"])
        assert times[0] == row["source_origin_time"]
        assert seconds == sorted(seconds)  # type: ignore[type-var]
        assert len(roads) == len(times) == len(set(roads))
        assert all(a * line.city.road_map.roads + b in keys for a, b in itertools.pairwise(roads))
        assert (row["reached"] == "True") == (roads[-1] == int(row["destination_road_id"]))
        source = int(row["source_index"])
        real = line.city.trips["test"].roads_of(source)
        assert (int(row["origin_road_id"]), int(row["destination_road_id"])) == (real[0], real[-1])
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["search"] == kind
    assert about["reached"] == sum(row["reached"] == "True" for row in rows)
    assert about["data_fingerprint"] == line.city.meta.fingerprint
    assert len(about["model_digest"]) == 64
    if kind == "best-first":
        assert about["reached"] == 12  # the sample city is strongly connected


@pytest.mark.slow
def test_the_same_seed_draws_the_same_routes(line: Line, plain_run: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        flags = ("--count", "6", "--search", "sample", "--seed", seed)
        trainer("generate", plain_run, "--cache", line.cache, "--out", tmp_path / f"{name}.csv", *flags)
    a, b, c = ((tmp_path / f"{name}.csv").read_text() for name in "abc")
    assert a == b != c


def test_given_ends(line: Line, plain_run: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "od.csv"
    wanted.write_text(
        "origin_road_id,destination_road_id,source_origin_time\n3,40,2024-03-04T08:00:00Z\n5,5,2024-03-09T23:59:50Z\n"
    )
    trainer("generate", plain_run, "--cache", line.cache, "--out", tmp_path / "g.csv", "--od-file", wanted)
    found = read_generated(tmp_path / "g.csv", line.city.road_map)
    assert found.destinations.tolist() == [40, 5]
    assert found.trips.roads_of(0)[0] == 3
    assert found.trips.roads_of(1).tolist() == [5]  # already there


def test_evaluation_of_real_trips_against_themselves(line: Line, plain_run: Path, tmp_path: Path) -> None:
    """Real trips handed in as generated ones are perfect."""
    from trainer.generate.demand import Demand
    from trainer.generate.output import write_generated
    from trainer.generate.route import Path as RoutePath
    from trainer.generate.route import Route

    real = line.city.trips["test"]
    routes = [
        Route(RoutePath(tuple(map(int, real.roads_of(i))), tuple(map(int, real.times_of(i)))), True, 0)
        for i in range(len(real))
    ]
    first, last = real.roads[real.offsets[:-1]], real.roads[real.offsets[1:] - 1]
    demand = Demand(first.astype(np.int64), last.astype(np.int64), real.times[real.offsets[:-1]], np.arange(len(real)))
    write_generated(tmp_path / "real.csv", demand, routes, {})
    flags = ("--generated", tmp_path / "real.csv", "--out", tmp_path / "e.json")
    trainer("evaluate", plain_run, "--cache", line.cache, *flags)
    figures = json.loads((tmp_path / "e.json").read_text())
    for name in ("Distance_JSD", "Duration_JSD", "Radius_JSD", "Hausdorff_km", "DTW_km", "EDR"):
        assert figures[name] == pytest.approx(0, abs=1e-12), name
    assert figures["destination_reached_rate"] == figures["od_pair_match_rate"] == 1
    assert figures["compared_pairs"] == len(real)
    summary = json.loads((plain_run / "summary.json").read_text())
    assert figures["next_step_accuracy"] == summary["next_step_accuracy"]


@pytest.mark.slow
def test_fusing_the_teacher(line: Line, plain_run: Path, tmp_path: Path) -> None:
    def figures(*flags: str | Path) -> dict[str, float]:
        trainer("evaluate", plain_run, "--cache", line.cache, "--out", tmp_path / "e.json", *flags)
        return dict(json.loads((tmp_path / "e.json").read_text()))

    teacher = ("--teacher", f"local:{line.teacher}")
    alone, nothing, much = (
        figures(),
        figures("--fuse-teacher", "0", *teacher),
        figures("--fuse-teacher", "100", *teacher),
    )
    assert alone["loss_next_step"] == nothing["loss_next_step"]
    assert much["loss_next_step"] > 2 * alone["loss_next_step"]  # this teacher is random: it can only harm
    assert "--fuse-teacher needs --teacher" in trainer("evaluate", plain_run, "--fuse-teacher", "1", status=2).stderr
