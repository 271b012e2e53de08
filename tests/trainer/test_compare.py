"""`trainer compare` on folders of evaluated runs: grouping, refusals, and what its numbers say."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tests.trainer.datasets import Outcome, refused, trainer
from tests.trainer.evaluated_runs import evaluated_run
from trainer.compare.arms import group
from trainer.compare.runs import load_run
from trainer.evaluate.stored import read_evaluation, write_evaluation


def compared(tmp_path: Path, *words: str | Path) -> dict[str, Any]:
    outcome = trainer("compare", *words, "--out", tmp_path / "c.json", "--draws", "200")
    assert outcome.status == 0, outcome.err
    return dict(json.loads((tmp_path / "c.json").read_text()))


def row(found: dict[str, Any], figure: str) -> dict[str, Any]:
    (one,) = [each for each in found["rows"] if each["figure"] == figure]
    return dict(one)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three seeds of two arms; in one of them steps take longer."""
    root = tmp_path_factory.mktemp("runs")
    arms = {"plain": {}, "slow": {"weight": 0.5, "slower": 60.0}}
    return {
        arm: [evaluated_run(root / f"{arm}-{seed}", seed=seed, **how) for seed in (42, 43, 44)]  # type: ignore[arg-type]
        for arm, how in arms.items()
    }


def test_runs_that_differ_by_their_seed_are_an_arm(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    found = compared(tmp_path, *runs["plain"], *runs["slow"])
    assert {name: [run["seed"] for run in arm["runs"]] for name, arm in found["arms"].items()} == {
        "plain": [42, 43, 44],
        "slow": [42, 43, 44],
    }
    assert found["baseline"] == "plain"
    assert found["requests"] == 40
    (plain, slow) = [line for line in found["notes"] if "(seed 42)" in line]
    assert plain.startswith(f"plain: {runs['plain'][0]} (seed 42), {runs['plain'][1]} (seed 43)")
    assert plain.endswith("with distill.lambda=0.1")
    assert slow.endswith("with distill.lambda=0.5")


def test_what_differs_is_found_and_what_does_not_is_not(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    found = compared(tmp_path, *runs["plain"], *runs["slow"])
    slower = row(found, "TripDuration_JSD")
    assert slower["difference"] > 0
    assert slower["low"] > 0
    assert slower["p_corrected"] < 0.15
    assert (slower["level"], slower["test"], slower["better"]) == ("set", "bootstrap", "lower")
    for same in ("DTW_km", "RoadVisit_JSD", "Hausdorff_norm"):
        assert row(found, same)["p_corrected"] > 0.05, same
        assert row(found, same)["low"] < 0 < row(found, same)["high"], same
    assert row(found, "mape_seconds")["mine"] is None  # one of the runs does not know


def test_rows_of_trips_are_the_means_and_tests_of_common_trips(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    found = row(compared(tmp_path, *runs["plain"], *runs["slow"]), "DTW_km")
    each = {
        arm: np.stack([read_evaluation(run / "evaluation.json").trips["DTW_km"] for run in paths])
        for arm, paths in runs.items()
    }
    known = ~np.isnan(np.concatenate([*each.values()])).any(axis=0)
    assert found["n"] == known.sum() > 10
    differences = each["slow"][:, known].mean(axis=0) - each["plain"][:, known].mean(axis=0)
    assert found["difference"] == pytest.approx(differences.mean())
    assert found["mine"] == pytest.approx(each["slow"][:, known].mean())
    assert found["p"] == pytest.approx(wilcoxon(differences).pvalue)
    assert found["differing"] == np.count_nonzero(differences)
    of_seeds = each["slow"][:, known].mean(axis=1) - each["plain"][:, known].mean(axis=1)
    assert found["p_seeds"] == pytest.approx(wilcoxon(of_seeds).pvalue)


def test_few_seeds_are_said_to_be_few(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    three = compared(tmp_path, *runs["plain"], *runs["slow"])["notes"]
    assert any(
        "no test over trainings gives p below 0.25: they cannot be significant at 0.05, 6 seeds" in n for n in three
    )
    one = compared(tmp_path, runs["plain"][0], runs["slow"][0])
    assert any("plain-42 and slow-42" in n or "slow-42 and plain-42: a single seed" in n for n in one["notes"])
    assert {each["p_seeds"] for each in one["rows"]} == {None}
    assert row(one, "next_step_accuracy")["low"] is None
    assert row(one, "DTW_km")["low"] is not None


def test_results_depend_on_the_seed_only(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    words = (*runs["plain"], *runs["slow"])
    first, again = compared(tmp_path, *words), compared(tmp_path, *words)
    assert first == again
    other = compared(tmp_path, *words, "--seed", "1")
    assert row(other, "DTW_km")["low"] != row(first, "DTW_km")["low"]
    assert row(other, "DTW_km")["p"] == row(first, "DTW_km")["p"]


def test_arms_by_name_and_another_baseline(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    mixed = f"mixed={runs['plain'][0]},{runs['slow'][1]}"
    found = compared(tmp_path, "--arm", mixed, "--arm", f"rest={runs['plain'][1]}", "--baseline", "rest")
    assert found["baseline"] == "rest"
    assert found["arms"]["mixed"]["given"]
    assert {each["arm"] for each in found["rows"]} == {"mixed"}
    assert any("its runs, put together by hand, differ in distill.lambda" in note for note in found["notes"])


def test_three_arms_are_corrected_together(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    third = [evaluated_run(tmp_path / f"third-{seed}", seed=seed, weight=0.9) for seed in (1, 2)]
    found = compared(tmp_path, *runs["plain"], *runs["slow"], *third)
    assert [each["arm"] for each in found["rows"]] == ["slow"] * 19 + ["third"] * 19
    known = sorted(each["p"] for each in found["rows"] if each["p"] is not None)
    assert min(each["p_corrected"] for each in found["rows"] if each["p"]) == pytest.approx(known[0] * len(known))


def test_files_of_every_kind(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    outs = [tmp_path / f"c{suffix}" for suffix in (".md", ".csv", ".json")]
    words = [word for out in outs for word in ("--out", out)]
    outcome = trainer("compare", *runs["plain"], *runs["slow"], "--draws", "100", *words)
    assert outcome.status == 0, outcome.err
    text = outs[0].read_text()
    assert text.startswith("## slow against plain\n\n| figure | arm | baseline | difference [95%] |")
    rows = list(csv.DictReader(outs[1].read_text().splitlines()))
    whole = json.loads(outs[2].read_text())
    assert [each["figure"] for each in rows] == [each["figure"] for each in whole["rows"]]
    assert len(text.split("## ")[1].split("\n\n")[1].splitlines()) == len(rows) + 2
    assert float(rows[1]["difference"]) == whole["rows"][1]["difference"]
    assert whole["commit"] is None or len(whole["commit"]) >= 40
    assert "slow against plain" in outcome.out
    assert "destination_reached_rate ↑" in outcome.out
    for note in whole["notes"]:
        assert f"- {note}" in text


def test_names_of_arms_are_only_text(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    name, out = "a[/red]|b[bold]*:x:", tmp_path / "c.md"
    words = ("--arm", f"{name}={runs['slow'][0]}", "--arm", f"plain={runs['plain'][0]}", "--baseline", "plain")
    outcome = trainer("compare", *words, "--draws", "100", "--out", out)
    assert outcome.status == 0, outcome.err
    assert f"{name} against plain" in outcome.out
    assert out.read_text().startswith(r"## a\[/red\]\|b\[bold\]\*:x: against plain")


def said(outcome: Outcome, *words: str) -> None:
    refused(outcome, *words)


def test_other_data_are_refused_unless_allowed(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    other = evaluated_run(tmp_path / "other", seed=9, weight=0.5, figures={"data_fingerprint": "e" * 64})
    said(
        trainer("compare", runs["plain"][0], other),
        "runs differ in data",
        f"{other}: eeeeeeee",
        "--allow-different data",
    )
    found = compared(tmp_path, runs["plain"][0], other, "--allow-different", "data")
    assert any(note.startswith("data differs: ") for note in found["notes"])
    assert found["allowed_different"] == ["data"]


@pytest.mark.parametrize(
    "change", [{"origin": {"commit": "b" * 40}}, {"figures": {"version": "9.9"}}, {"origin": {"commit": None}}]
)
def test_other_versions_are_refused_unless_allowed(
    change: dict[str, Any], runs: dict[str, list[Path]], tmp_path: Path
) -> None:
    other = evaluated_run(tmp_path / "other", seed=9, weight=0.5, **change)
    said(trainer("compare", runs["plain"][0], other), "runs differ in version", "0.1.0 (cccccccccccc)")
    said(trainer("compare", runs["plain"][0], other, "--allow-different", "data"), "runs differ in version")
    found = compared(tmp_path, runs["plain"][0], other, "--allow-different", "data,version")
    assert any(note.startswith("version differs: ") for note in found["notes"])


def test_changed_files_are_no_version(tmp_path: Path) -> None:
    commit = {"commit": "b" * 40 + "-dirty"}
    runs = [evaluated_run(tmp_path / str(n), seed=n, weight=n, figures=commit, origin=commit) for n in (1, 2)]
    assert any(note.startswith("version is not known for sure") for note in compared(tmp_path, *runs)["notes"])


def test_a_seed_that_comes_twice_is_told(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    again = evaluated_run(tmp_path / "again", seed=42, weight=0.1, slower=0.5, figures={"model_digest": "a" * 64})
    found = compared(tmp_path, *runs["plain"], again, *runs["slow"])
    assert any("some of its runs have the same seed" in note for note in found["notes"])


def test_other_requests_are_refused(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    for name, how in (("ends", {"same_requests": False}), ("more", {"trips": 41}), ("few", {"trips": 12})):
        other = evaluated_run(tmp_path / name, seed=9, weight=0.5, **how)
        outcome = trainer("compare", runs["plain"][0], other, "--allow-different", "data,version")
        said(outcome, "asked for other origins, destinations or start times", "--od-file")


def test_dropped_trips_may_be_missing(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    """Of 40 trips the last two were bad."""
    bad = {"dropped_trips": {"time goes back": 2}}
    other = evaluated_run(tmp_path / "o", seed=9, weight=0.5, trips=38, figures=bad)
    found = compared(tmp_path, runs["plain"][0], other)
    assert found["requests"] == 38
    assert "38 of 40 requests are compared: 2 bad trips were dropped" in found["notes"]
    assert row(found, "Distance_JSD")["n"] == 38


def test_without_trips_next_step_figures_are_compared(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    bare = [evaluated_run(tmp_path / f"bare-{seed}", seed=seed, weight=0.5) for seed in (1, 2)]
    bare += [evaluated_run(tmp_path / f"other-{seed}", seed=seed, weight=0.7) for seed in (1, 2)]
    for run in bare:
        file = run / "evaluation.json"
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "trips_digest"}))
    said(trainer("compare", runs["plain"][0], bare[0]), f"{bare[0]}: has no evaluated trips, others have")
    found = compared(tmp_path, *bare)
    assert {each["level"] for each in found["rows"]} == {"run"}
    assert row(found, "next_step_accuracy")["low"] is not None
    assert "no generated trips were evaluated, so only next-step figures are compared" in found["notes"]


def test_mistakes_are_named(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    a, b = runs["plain"][0], runs["slow"][0]
    empty, copy = tmp_path / "empty", tmp_path / "copy"
    shutil.copytree(a, copy)
    for words, expected in (
        ((), "a comparison needs two arms"),
        (tuple(runs["plain"]), "differ by their seeds only (plain: "),
        ((a, tmp_path / "none"), "none: is not the folder of a training run"),
        ((a, a, b), "is given twice"),
        ((a, copy, b), "are one and the same student"),
        ((a, "--arm", "x"), "--arm 'x': must be NAME=RUN,RUN"),
        ((a, "--arm", f"plain-42={b}"), "two arms are called plain-42"),
        ((a, b, "--baseline", "x"), "--baseline x: no such arm; there are plain-42, slow-42"),
        ((a, b, "--correction", "none"), "--correction must be holm or bh"),
        ((a, b, "--allow-different", "seeds"), "--allow-different seeds: must be data or version"),
        ((a, b, "--out", tmp_path / "x.txt"), "must end in .json, .md, .csv"),
        ((a, b, "--out", tmp_path / "no" / "x.md"), "is a folder or lies in none"),
    ):
        said(trainer("compare", *words), expected)
    evaluated_run(empty, seed=7, weight=0.5)
    (empty / "evaluation.json").unlink()
    said(trainer("compare", a, empty), "evaluation.json: cannot be read", "trainer evaluate writes it")


def test_an_evaluation_of_what_is_no_longer_there_is_refused(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    other = evaluated_run(tmp_path / "other", seed=9, weight=0.5)
    (other / "checkpoints" / "best.safetensors").write_bytes(b"a newer student")
    said(trainer("compare", runs["plain"][0], other), "evaluation.json: is about another student", "evaluate")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distributions": {}}, "has no distance_km of its trips"),
        ({"distributions": [1]}, "distributions should be"),
        ({"distributions": {"minutes": {"greatest": 1, "generated": [], "real": []}}}, "distributions.minutes."),
        ({"next_step_accuracy": "high"}, "next_step_accuracy should be a valid number"),
        ({"od_pair_match_rate": True}, "od_pair_match_rate should be a valid number"),
        ({"dropped_trips": {"bad": "two"}}, "dropped_trips.bad should be a valid integer"),
        ({"generated_with": "beam"}, "generated_with should be"),
        ({"commit": 7}, "commit should be a valid string"),
        ({"trips_digest": 7}, "trips_digest should be a valid string"),
    ],
)
def test_a_malformed_evaluation_is_one_line(
    change: dict[str, Any], said: str, runs: dict[str, list[Path]], tmp_path: Path
) -> None:
    other = evaluated_run(tmp_path / "other", seed=9, weight=0.5)
    file = other / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(trainer("compare", runs["plain"][0], other), f"{file}: ", said, "again")


def test_entries_that_a_comparison_needs(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    other = evaluated_run(tmp_path / "other", seed=9, weight=0.5)
    found = read_evaluation(other / "evaluation.json")
    write_evaluation(found.file, found.figures, {name: found.trips[name] for name in found.trips if name != "line"})
    refused(trainer("compare", runs["plain"][0], other), f"{found.file}: has no line of its trips")


def test_other_ways_of_evaluating_are_refused(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    other = evaluated_run(tmp_path / "other", seed=9, weight=0.5, figures={"split": "val"})
    said(trainer("compare", runs["plain"][0], other), "evaluated with another split", "val")


def test_anomaly_scores_are_compared_where_one_teacher_judged_all(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    scores = {"anomaly_score": np.arange(40.0)}
    a, b, c = (
        evaluated_run(tmp_path / name, seed=9, weight=weight, figures={"judge_digest": judge}, arrays=scores)
        for name, weight, judge in (("a", 0.1, "x"), ("b", 0.5, "x"), ("c", 0.7, "y"))
    )
    assert row(compared(tmp_path, a, b), "anomaly_score")["n"] == 40
    assert "anomaly_score" not in {each["figure"] for each in compared(tmp_path, a, runs["slow"][0])["rows"]}
    said(trainer("compare", a, c), "evaluated with another judge_digest")


def test_ways_of_searching_make_arms(tmp_path: Path) -> None:
    made = [
        evaluated_run(tmp_path / f"{search}", seed=1, figures={"generated_with": {"search": search}})
        for search in ("beam", "greedy")
    ]
    arms = group([load_run(run) for run in made])
    assert [arm.name for arm in arms] == ["beam", "greedy"]


def test_names_of_arms(tmp_path: Path) -> None:
    names = ("tuned-1", "tuned-2", "b", "x", "7", "8")
    weights = (0.1, 0.1, 0.2, 0.2, 0.3, 0.3)
    made = [
        evaluated_run(tmp_path / name, seed=seed, weight=weight, trips=3)
        for seed, (name, weight) in enumerate(zip(names, weights, strict=True))
    ]
    assert [arm.name for arm in group([load_run(run) for run in made])] == ["tuned", "b", "7"]
