"""`trainer report` as a command: what it writes, what it refuses, and that names of runs are only text."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.teacher_server.full_disk import files_end_at
from tests.trainer.datasets import drop_column, files_in, refused, rows_of, set_field, small_city, trainer
from tests.trainer.small_runs import report, small_run
from trainer.files import digest_of

EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    small_run(root, "a")
    return root


def copy(root: Path, name: str) -> Path:
    return Path(shutil.copytree(root / "runs" / "a", root / "copies" / name))


def data_of(page: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_one_run_gets_its_report_beside_it(root: Path) -> None:
    run = copy(root, "alone")
    before = files_in(run)
    done = trainer("report", run, "--cache", root / "cache")
    assert done.status == 0, done.err
    assert files_in(run).keys() - before.keys() == {"report.html"}
    assert "report.html: 1 run, " in done.out
    text = (run / "report.html").read_text()
    assert digest_of(run / "checkpoints" / "best.safetensors")[:16] in text
    assert json.loads((run / "origin.json").read_text())["data_fingerprint"][:16] in text
    assert (run / "report.html").stat().st_size < 6_000_000
    assert "not evaluated" not in text.lower()


def test_nothing_is_fetched(root: Path) -> None:
    page = report(root, [root / "runs" / "a"]).read_text()
    head = page[: page.index("<script>")]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert html.unescape(policy[1]).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-" not in policy[1]
    assert re.findall(r'(?:src|href)="(?!data:)', head) == []


def test_names_are_text(root: Path) -> None:
    run = root / "evil" / EVIL.replace("/", "∕").replace("∕script", "").strip()
    run.parent.mkdir()
    shutil.copytree(root / "runs" / "a", run)
    (run / "config.yaml").write_text(f"# {EVIL}\n" + (run / "config.yaml").read_text())
    page = report(root, [run], "evil.html").read_text()
    assert "<img" not in page[: page.index("<script>")]
    assert EVIL not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert data_of(root / "evil.html")["usage"]["generated"][0]["name"] == run.name  # type: ignore[index]


def test_what_a_run_lacks_is_said(root: Path) -> None:
    run = copy(root, "bare")
    for name in ("evaluation.json", "summary.json"):
        (run / name).unlink()
    page = report(root, [root / "runs" / "a", run], "two.html").read_text()
    assert "Not evaluated yet: run `trainer evaluate` on it." in page
    assert "Not trained to its end" in page
    (run / "generated.csv").unlink()
    (run / "generated.json").unlink()
    assert "No generated trips yet" in report(root, [root / "runs" / "a", run], "two.html").read_text()


def test_figures_of_other_trips_are_left_out(root: Path) -> None:
    run = copy(root, "stale")
    evaluation = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps(evaluation | {"generated_digest": "0" * 64}))
    page = report(root, [run], "stale.html").read_text()
    assert "Trained or generated anew since it was evaluated" in page
    assert f"{evaluation['EDR']:.3f}</td>" not in page


def test_search_effort_of_every_trip(root: Path) -> None:
    run = copy(root, "effort")

    def told() -> list[object]:
        trips = data_of(report(root, [run], "effort.html"))["journeys"]["trips"]  # type: ignore[index]
        return [trip["generated"][0]["expansions"] for trip in trips]

    searched = [int(row["expansions"]) for row in rows_of(run / "generated.csv")]
    assert sum(searched) / len(searched) == json.loads((run / "generated.json").read_text())["expansions_mean"]
    assert told() == searched
    drop_column(run / "generated.csv", "expansions")  # as files of the research code
    assert told() == [None] * len(searched)


def test_bad_trips_are_dropped_and_counted(root: Path) -> None:
    run, cache = copy(root, "bad"), ("--cache", root / "cache")
    count = len(rows_of(run / "generated.csv"))
    set_field(run / "generated.csv", 1, "gene_trace_road_id", "[]")
    line = set_field(run / "generated.csv", 0, "gene_trace_road_id", "[0, 120]")
    refused(trainer("report", run, *cache), f"generated.csv:{line}: ", "--skip-bad")
    done = trainer("report", run, "--skip-bad", *cache)
    assert done.status == 0, done.err
    page = run / "report.html"
    assert "Bad trips that are left out here: " in page.read_text()
    assert "1 x a trip needs one road or more" in page.read_text()
    assert len(data_of(page)["journeys"]["trips"]) == count - 2  # type: ignore[index]
    assert "left out here" not in report(root, [root / "runs" / "a"]).read_text()


def test_a_malformed_evaluation_is_one_line(root: Path) -> None:
    run = copy(root, "malformed")
    evaluation = json.loads((run / "evaluation.json").read_text())
    for change, said in (({"scenarios": [1]}, "scenarios"), ({"scenarios": {"day": {"weekday": 2}}}, "scenarios.day")):
        (run / "evaluation.json").write_text(json.dumps(evaluation | change))
        refused(trainer("report", run, "--cache", root / "cache"), f"{run / 'evaluation.json'}: {said}", "run it again")


def test_refusals(root: Path, tmp_path: Path) -> None:
    run, cache = root / "runs" / "a", ("--cache", root / "cache")
    refused(trainer("report", tmp_path / "none", *cache), "is not the folder of a training run")
    refused(trainer("report", run, run, "--out", tmp_path / "x.html", *cache), "named twice")
    refused(trainer("report", run, copy(root, "second"), *cache), "--out FILE.html")
    refused(trainer("report", run, "--out", tmp_path / "no" / "x.html", *cache), "lies in none")
    bare = copy(root, "untravelled")
    (bare / "generated.csv").unlink()
    refused(trainer("report", bare, *cache), "no generated trips", f"trainer generate {bare}")
    retrained = copy(root, "retrained")
    made = json.loads((retrained / "generated.json").read_text()) | {"model_digest": "f" * 64}
    (retrained / "generated.json").write_text(json.dumps(made))
    refused(trainer("report", retrained, *cache), "another student")
    (retrained / "generated.json").write_text("[1")
    refused(trainer("report", retrained, *cache), "generated.json: not readable as JSON")


def test_runs_of_other_cities(root: Path, tmp_path: Path) -> None:
    run, other = root / "runs" / "a", copy(root, "elsewhere")
    origin = json.loads((other / "origin.json").read_text())
    (other / "origin.json").write_text(json.dumps(origin | {"data_fingerprint": "ab" * 32}))
    out = tmp_path / "x.html"
    refused(trainer("report", run, other, "--out", out, "--cache", root / "cache"), "a report is of one city", "abab")
    stranger = small_city(tmp_path / "stranger", seed=2)
    refused(trainer("report", run, "--data", stranger, "--cache", tmp_path / "c"), "is not the data", "stranger")
    assert not out.exists()


def test_a_full_disk_leaves_the_report_that_was_there(root: Path) -> None:
    run = copy(root, "full")
    (run / "report.html").write_text("the old one")
    with files_end_at(100_000):
        done = trainer("report", run, "--cache", root / "cache")
    assert done.status == 1
    assert "cannot be written" in done.err
    assert (run / "report.html").read_text() == "the old one"
    assert not list(run.glob("*.partial"))
