"""A report of two arms of two seeds, judged by a served teacher, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.browser import DESK, LEAST_CONTRAST, PHONE, Page, browser
from tests.integration.line import city_teacher
from tests.serving import serve
from tests.trainer.datasets import small_city, trainer
from tests.trainer.small_runs import report, small_run
from trainer.data.prepare import prepare

pytestmark = pytest.mark.system

ARMS = {"plain": "none", "taught": "uniform"}
SEEDS = (1, 2)
DETECTIONS = [
    {"kind": kind, "level": 3, "share": 0.1, "pr_auc": area, "f1": 0.5}
    for kind, area in (("route_switch", 0.75), ("detour", 0.25))
]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("arms")
    city = prepare(small_city(root / "city"), root / "cache").city
    benchmark = {"digest": city_teacher(root / "teacher", city), "data_fingerprint": city.meta.fingerprint}
    (root / "benchmark.json").write_text(json.dumps(benchmark | {"detections": DETECTIONS}))
    with serve(root / "teacher") as served:
        judge = ("--teacher", f"grpc://{served.grpc}", "--teacher-evaluation", root / "benchmark.json")
        runs = [
            small_run(root, f"{arm}-{seed}", f"training.seed={seed}", teacher=teacher, judge=judge)
            for arm, teacher in ARMS.items()
            for seed in SEEDS
        ]
    return report(root, runs)


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with browser() as chrome:
        yield chrome


@pytest.fixture
def page(driver: webdriver.Chrome, html: Path) -> Iterator[Page]:
    shown = Page(driver)
    shown.open(html.as_uri())
    yield shown
    assert driver.get_log("browser") == []


def evaluation(html: Path, run: str) -> dict[str, object]:
    return dict(json.loads((html.parent / "runs" / run / "evaluation.json").read_text()))


def rows(page: Page, table: str) -> list[list[str]]:
    cells = "(row) => [...row.cells].map((cell) => cell.textContent.trim())"
    return list(page.value(f"[...document.querySelectorAll(`{table} tbody tr`)].map({cells})"))


def test_the_comparison_is_that_of_the_command(page: Page, html: Path) -> None:
    runs = [html.parent / "runs" / f"{arm}-{seed}" for arm in ARMS for seed in SEEDS]
    done = trainer("compare", *runs, "--out", html.parent / "comparison.md")
    assert done.status == 0, done.err
    said = (html.parent / "comparison.md").read_text()
    found = rows(page, "[aria-label='taught against plain']")
    assert len(found) > 15
    for row in found:
        assert f"| {' | '.join(row)} |" in said
    assert "2 and 2 seeds" in page.text("[aria-labelledby=comparison]")


def test_differences_are_drawn_with_their_intervals(page: Page) -> None:
    chart = "document.querySelector('[data-chart=comparison]')"
    figures = page.value(f"{chart}.layout.yaxis.ticktext")
    assert {"anomaly_score", "TripDuration_JSD", "choice_accuracy"} <= set(figures)
    assert page.value(f"{chart}.querySelectorAll('.points path').length") == len(figures)
    assert page.value(f"{chart}.querySelectorAll('.errorbar').length") == len(figures)
    assert page.value(f"{chart}.querySelector('.main-svg').clientHeight") == page.value(f"{chart}.clientHeight") > 300


def test_scenarios_are_those_of_the_evaluation(page: Page, html: Path) -> None:
    found = rows(page, ".scenarios")
    for kind, scenarios in evaluation(html, "taught-2")["scenarios"].items():  # type: ignore[attr-defined]
        for name, figures in scenarios.items():
            begin = next(i for i, row in enumerate(found) if row[0].startswith(f"{name}"))
            real, *generated = found[begin + 1 : begin + 6]
            assert [row[0] for row in generated] == [f"{arm}-{seed}" for arm in ARMS for seed in SEEDS], kind
            assert (real[1], generated[-1][1]) == (str(figures["real_trips"]), str(figures["generated_trips"]))
            edr = figures["EDR"]
            assert generated[-1][-1] == ("–" if edr is None else f"{edr:.3f}")


def test_the_verdict_is_that_of_the_evaluation(page: Page, html: Path) -> None:
    real, *generated = rows(page, ".verdict")[1:]
    figures = evaluation(html, "plain-1")
    assert real[:2] == ["real, test", f"{figures['teacher_perplexity_real']:.3f}"]
    assert generated[0][:2] == ["plain-1", f"{figures['teacher_perplexity_generated']:.3f}"]
    assert [row[4] for row in generated] == ["20"] * 4
    assert rows(page, "[aria-labelledby=verdict] details") == [
        ["route switch", "3", "0.1", "0.750", "0.500"],
        ["detour", "3", "0.1", "0.250", "0.500"],
    ]


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (DESK, "light")])
def test_open_tables_can_be_read(page: Page, html: Path, width: int, scheme: str) -> None:
    page.open(html.as_uri(), width, scheme)
    for summary in page.driver.find_elements(By.CSS_SELECTOR, ".numbers:not([open]) > summary"):
        summary.click()
    assert page.value("document.documentElement.scrollWidth") <= width
    contrast, text = page.driver.execute_script(LEAST_CONTRAST)
    assert contrast > 4.5, text


def test_paper_has_all_tables_open(page: Page) -> None:
    opened = "[...document.querySelectorAll('.numbers')].map((table) => table.open)"
    before = page.value(opened)
    page.driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert all(page.value(opened))
    page.driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert page.value(opened) == before
