"""A report of two small runs in a real browser: it shows them, its controls work, it fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from tests.browser import DESK, LEAST_CONTRAST, PHONE, Page, browser
from tests.trainer.small_runs import report, small_run

pytestmark = pytest.mark.system

TAGS = "<b>bold<i>"


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    runs = [small_run(root, "plain", teacher="none"), small_run(root, TAGS, search="sample")]
    return report(root, runs)


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with browser() as chrome:
        chrome.execute_cdp_cmd("Network.enable", {})
        yield chrome


class ReportPage(Page):
    """The report."""

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def layer(self, name: str) -> None:
        self.driver.execute_script(f"document.querySelector('[name=layer][value={name}]').click()")

    def span(self) -> float:
        """Metres from the left to the right of the map."""
        left, right = self.value("map.layout.xaxis.range")
        return float(right - left)

    def colours(self) -> list[str]:
        return list(self.value("map.data.map((line) => line.line?.color)"))


@pytest.fixture
def page(driver: webdriver.Chrome, html: Path) -> Iterator[ReportPage]:
    shown = ReportPage(driver)
    shown.open(html.as_uri())
    yield shown
    assert driver.get_log("browser") == []  # no error, nothing that the policy forbids
    assert shown.value("performance.getEntriesByType('resource').map(({ name }) => name)") == []


def test_it_shows_all_charts_and_figures(page: ReportPage, html: Path) -> None:
    assert page.text("h1") == f"plain, {TAGS}"
    rows = [row.text for row in page.driver.find_elements(By.CSS_SELECTOR, ".figures tbody tr")]
    assert [row.split("\n")[0] for row in rows] == ["plain", TAGS]
    evaluation = json.loads((html.parent / "runs" / "plain" / "evaluation.json").read_text())
    assert f"{evaluation['Hausdorff_km']:.3f}" in rows[0]
    places = page.value(
        "[...document.querySelectorAll('.grid [data-chart]')].map((c) => c.querySelectorAll('.lines').length)"
    )
    assert places == [3, 3, 3, 3, 2, 2, 1, 1]  # real and two runs; losses and accuracy of two; the plain one has no KL
    names = page.value("document.querySelector('.grid [data-chart]').data.map((line) => line.name)")
    assert names == ["real", "plain", "&lt;b&gt;bold&lt;i&gt;"]


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(page: ReportPage, html: Path, width: int, scheme: str) -> None:
    page.open(html.as_uri(), width, scheme)
    assert page.value("innerWidth") == width
    assert page.value("document.documentElement.scrollWidth") <= width
    for layer in ("difference", "journeys"):
        page.layer(layer)
        contrast, text = page.driver.execute_script(LEAST_CONTRAST)
        assert contrast > 4.5, text
    assert is_dark(page) == (scheme == "dark")
    named = "(control) => control.labels.length || control.ariaLabel || control.textContent"
    assert page.value(f"[...document.querySelectorAll('button, select')].every({named})")


def is_dark(page: ReportPage) -> bool:
    [red] = page.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 1).map(Number)")
    return int(red) < 64


def test_the_theme_can_be_chosen(page: ReportPage) -> None:
    light = page.colours()
    page.click("#theme")
    assert not is_dark(page)
    page.click("#theme")
    assert is_dark(page)
    assert page.text("#theme") == "● Dark"
    assert set(page.colours()).isdisjoint(light)  # charts follow
    page.click("#theme")
    assert page.text("#theme") == "◐ Auto"
    assert page.colours() == light


def test_layers_of_the_map(page: ReportPage) -> None:
    assert page.text("#legend").startswith("Generated minus real, visits per 1,000 trips")
    difference = page.value("map.data.map((line) => line.x.length)")
    page.layer("real")
    assert page.text("#legend").startswith("Visits per 1,000 trips")
    assert not page.driver.find_element(By.ID, "run-choice").is_displayed()
    real = page.value("map.data.map((line) => line.x.length)")
    assert sum(real) == sum(difference)  # every street is on every layer
    page.layer("generated")
    first = page.value("map.data.map((line) => line.x.length)")
    Select(page.driver.find_element(By.ID, "run")).select_by_visible_text(TAGS)
    assert len({tuple(real), tuple(first), tuple(page.value("map.data.map((line) => line.x.length)"))}) == 3


def test_a_pointer_asks_the_map_about_a_street(page: ReportPage) -> None:
    place = page.driver.find_element(By.ID, "map")
    around = [(x, y) for x in range(-60, 61, 20) for y in range(-60, 61, 20)]
    for x, y in around:
        webdriver.ActionChains(page.driver, duration=10).move_to_element_with_offset(place, x, y).perform()
        if page.text("#readout").startswith("Street "):
            break
    assert " visits per 1,000 trips (" in page.text("#readout")


def test_zoom_and_pan(page: ReportPage) -> None:
    whole = page.span()
    page.click("#closer")
    page.until(lambda: page.span() == pytest.approx(0.6 * whole, rel=0.01))
    page.layer("real")
    assert page.span() == pytest.approx(0.6 * whole, rel=0.01)  # another layer keeps the place
    left = page.value("map.layout.xaxis.range[0]")
    surface = page.driver.find_element(By.CSS_SELECTOR, "#map .nsewdrag")
    webdriver.ActionChains(page.driver).click_and_hold(surface).move_by_offset(100, 0).release().perform()
    page.until(lambda: page.value("map.layout.xaxis.range[0]") < left - 10)
    page.click("#farther")
    page.click("#whole")
    page.until(lambda: page.span() == pytest.approx(whole, rel=0.01))


def test_trips_to_step_through(page: ReportPage) -> None:
    page.layer("journeys")
    count = page.value("data.journeys.trips.length")
    assert count == 20
    assert page.text("#which").endswith(f"(1 of {count})")
    rows = page.driver.find_elements(By.CSS_SELECTOR, "#journey tbody th")
    assert [row.text for row in rows] == ["real", "plain", TAGS]
    page.click("#later")
    page.click("#later")
    assert page.text("#which").endswith(f"(3 of {count})")
    assert page.text("#journey tbody").split("\n")[0].startswith("real ")
    page.click("#earlier")
    assert page.text("#which").endswith(f"(2 of {count})")
    Select(page.driver.find_element(By.ID, "order")).select_by_value("apart")
    apart = [trip["generated"][0]["apart"] for trip in page.value("data.journeys.trips")]
    assert page.value("most(present(), told.apart)") >= max(apart)
    page.click("#earlier")
    assert page.text("#which").endswith(f"({count} of {count})")


def test_it_prints_in_light_on_paper(page: ReportPage) -> None:
    page.click("#theme")
    page.click("#theme")
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 30_000
    assert is_dark(page)  # again, afterwards
    page.driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not is_dark(page)
    widths = page.value("[...document.querySelectorAll('.main-svg')].map((svg) => svg.clientWidth)")
    assert 0 < max(widths) < 710  # A4 less its margins
    page.driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert is_dark(page)
