"""Pages in a real browser: headless Chromium, driven by Selenium."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By

PHONE, DESK = 360, 1280
# The least contrast of a text with what is behind it, by WCAG's formula, and that text.
LEAST_CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => channels(colour).slice(0, 3)
  .map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ink = (element) => getComputedStyle(element)[element instanceof SVGElement ? "fill" : "color"];
const behind = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return (channels(colour)[3] ?? 1) > 0 ? colour : behind(element.parentElement);
};
const texts = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility() &&
  [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
return texts.map((element) => {
  const [low, high] = [light(ink(element)), light(behind(element))].sort((a, b) => a - b);
  return [(high + 0.05) / (low + 0.05), element.textContent];
}).reduce((least, each) => (each[0] < least[0] ? each : least));
"""


class Page:
    """The page in a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, width: int = DESK, scheme: str = "light") -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get_log("browser")  # of the page before
        self.driver.get(url)

    def value(self, expression: str) -> Any:
        """What an expression of the page's scripts is."""
        return self.driver.execute_script(f"return {expression}")

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def until(self, what: Callable[[], object], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.text("body")
            time.sleep(0.1)


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Keeps what pages say on the console: `get_log("browser")`."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    chrome.set_page_load_timeout(30)
    try:
        yield chrome
    finally:
        chrome.quit()
