"""What a report says of arms of runs, of scenarios and of a teacher's verdict, without a browser."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.datasets import small_city
from tests.trainer.evaluated_runs import evaluated_run
from trainer.compare.comparison import Row
from trainer.data.city import City
from trainer.data.prepare import prepare
from trainer.data.trips import Trips
from trainer.evaluate.distributions import Measures
from trainer.evaluate.paths import Sphere
from trainer.evaluate.scenarios import Scenarios
from trainer.files import read_object
from trainer.generate.reading import Generated
from trainer.report.comparison import ArmTable, comparison, forest
from trainer.report.runs import Routes, Run
from trainer.report.scenarios import scenarios
from trainer.report.verdict import outliers, verdicts
from trainer.run_folder import RunFolder


def run_of(folder: Path) -> Run:
    """As a report reads it, without its trips."""
    evaluation = read_object(RunFolder(folder).evaluation)
    return Run(folder.name, RunFolder(folder), None, {}, {}, evaluation, {}, [], None, ())


def row(figure: str, better: str, theirs: float, ends: tuple[float, float, float] | None, p: float | None) -> Row:
    low, difference, high = ends or (None, None, None)
    mine = None if difference is None else theirs + difference
    return Row("b", "a", figure, "trip", better, 9, 9, mine, theirs, difference, low, high, p_corrected=p)


def test_differences_are_turned_so_that_better_is_to_the_right() -> None:
    rows = [
        row("EDR", "lower", 0.5, (-0.2, -0.1, 0.05), 0.01),
        row("choice_accuracy", "higher", 0.8, (0.08, 0.16, 0.24), None),
        row("DTW_km", "lower", 0.0, (0.0, 0.1, 0.2), 0.5),  # a share of nothing
        row("Hausdorff_km", "lower", 1.0, None, None),
        replace(row("EDR of one run", "lower", 0.5, (0.0, 0.1, 0.2), None), low=None, high=None),
    ]
    chart = forest(rows, [ArmTable("b", 1, "circle", [])])
    (trace,) = chart["traces"]
    assert chart["layout"]["yaxis"]["ticktext"] == ["EDR", "choice_accuracy", "EDR of one run"]
    assert trace["x"] == [0.2, 0.2, -0.2]
    assert trace["error_x"]["arrayminus"] == [0.3, 0.1, None]  # down to a worse 0.05 / 0.5
    assert trace["error_x"]["array"] == [0.2, 0.1, None]
    assert trace["marker"]["symbol"] == ["circle", "circle-open", "circle-open"]
    assert trace["y"] == [0, 1, 2]


def test_arms_are_compared_as_the_command_does(tmp_path: Path) -> None:
    folders = [
        evaluated_run(tmp_path / f"{arm}-{seed}", seed=seed, weight=weight)
        for arm, weight in (("plain", 0.1), ("taught", 0.5))
        for seed in (42, 43)
    ]
    found = comparison([run_of(folder) for folder in folders])
    assert found
    assert (found.refusal, found.baseline, found.requests) == ("", "plain", 40)
    (table,) = found.tables
    assert (table.arm, table.number) == ("taught", 2)
    figures = [cells[0] for cells in table.rows]
    assert {"TripDuration_JSD ↓", "DTW_km ↓", "choice_accuracy ↑"} <= set(figures)
    assert any("2 and 2 seeds" in line for line in found.lines)
    assert comparison([run_of(folder) for folder in folders[:2]]) is None  # a single arm
    assert comparison([]) is None


def test_why_runs_are_not_compared_is_said(tmp_path: Path) -> None:
    one = evaluated_run(tmp_path / "one", weight=0.1)
    for name, changes in {
        "requests": {"same_requests": False},
        "version": {"figures": {"version": "9"}, "origin": {"version": "9"}},
    }.items():
        other: dict[str, Any] = {"weight": 0.5, **changes}
        found = comparison([run_of(one), run_of(evaluated_run(tmp_path / name, **other))])
        assert found
        assert found.chart is None
        assert {"requests": "other origins", "version": "runs differ in version"}[name] in found.refusal


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    root = tmp_path_factory.mktemp("city")
    return prepare(small_city(root / "data"), root / "cache").city


def generated(trips: Trips) -> Routes:
    ends, unknown = trips.roads[trips.offsets[1:] - 1].astype(np.int64), np.full(len(trips), np.nan)
    found = Generated(trips, ends, np.arange(len(trips)) + 2, Counter())
    return Routes(found, trips.roads[trips.offsets[:-1]].astype(np.int64), ends, ends, unknown, unknown)


def test_scenarios_have_counts_and_medians_of_their_trips(city: City) -> None:
    real, made = city.trips["test"], city.trips["train"]
    sphere = Sphere.of(np.asarray(city.road_map.centres))
    evaluation = {"scenarios": {"day": {"weekday": {"EDR": 0.25}}}}
    run = Run("a", RunFolder(Path("a")), None, {}, {}, evaluation, {}, [], generated(made), ())
    measures = Measures.of(made, sphere)
    kinds = scenarios(Scenarios.of(made, real, sphere), (real, Measures.of(real, sphere)), [(0, run, measures)])
    assert [kind.title for kind in kinds][:2] == ["Day", "Hour of the start"]
    for kind in kinds:
        counts = np.array([[int(cells[0]) for _, cells in scenario.rows] for scenario in kind.scenarios])
        assert counts.sum(axis=0).tolist() == [len(real), len(made)]
    days = np.array([made.times[start] // 86_400 for start in made.offsets[:-1]])
    weekday = (days + 3) % 7 < 5  # 1970 began on a Thursday
    (_, of_real), (_, of_run) = kinds[0].scenarios[0].rows
    assert of_run[0] == str(weekday.sum())
    assert of_run[1] == f"{np.median(measures.distance_km[weekday]):.2f}"
    assert of_run[-1] == "0.250"
    assert of_run[-2] == "–"
    assert of_real[3:] == [""] * (len(of_run) - 3)


JUDGED = {
    "judge_digest": "ab" * 32,
    "judge_compute_type": "float32",
    "anomaly_threshold": 3.21,
    "teacher_perplexity_val": 7.0,
    "teacher_perplexity_real": 7.5,
    "teacher_perplexity_generated": 6.25,
    "anomaly_rate_generated": 0.125,
    "judged_trips_generated": 1500,
    "outlier_pr_auc_route_switch_3_0.1": 0.9,
    "outlier_f1_route_switch_3_0.1": 0.8,
    "outlier_f1_detour_5_0.1": "broken",
}


def test_a_verdict_for_each_teacher() -> None:
    def run(name: str, **evaluation: Any) -> Run:
        return Run(name, RunFolder(Path(name)), None, {}, {}, evaluation, {}, [], None, ())

    other = JUDGED | {"judge_digest": "cd" * 32}
    first, second = verdicts([run("plain"), run("a", **JUDGED), run("b", **other)], "test")
    assert (first.digest, second.digest) == ("ab" * 8, "cd" * 8)
    assert first.threshold == "3.210"
    assert [judged.name for judged in first.sets] == ["real, val", "real, test", "a"]
    assert first.sets[2].cells == ["6.250", "–", "12.5 %", "1,500", "–"]
    assert first.unjudged == ["plain", "b"]
    assert first.outliers == [("route switch", "3", "0.1", "0.900", "0.800"), ("detour", "5", "0.1", "–", "–")]
    assert verdicts([run("plain")], "test") == []
    assert outliers({}) == []
