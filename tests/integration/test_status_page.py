"""The status page in a real browser, of real servers: it shows what they do, and says when they are gone."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from protos.teacher.v1 import teacher_pb2_grpc
from tests.browser import DESK, LEAST_CONTRAST, PHONE, Page, browser
from tests.serving import RunningTeacher, serve, start, tiny_artifact, wait_until_ready
from tests.teacher_server.scoring import message_of, work_of

pytestmark = pytest.mark.system

WORK = work_of([[1, 2, 3]], [[[4, 5], [6, 7, 8]]])


class StatusPage(Page):
    """The page of a server."""

    def shown(self, path: str) -> str:
        return self.text(f'[data-show="{path}"]')

    def until_state(self, state: str, meaning: str) -> None:
        self.until(lambda: (self.text("#state") == state) and meaning in self.text("#meaning"))


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with browser() as chrome:
        yield chrome


@pytest.fixture
def page(driver: webdriver.Chrome) -> Iterator[StatusPage]:
    yield StatusPage(driver)
    driver.get("about:blank")  # polls no more


@contextmanager
def load(teacher: RunningTeacher) -> Iterator[None]:
    """Requests one after the other, one of eight of which is for another teacher, while a `with` lasts."""
    ended = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(teacher.grpc) as channel:
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)
            while not ended.wait(0.01):
                for _ in range(7):
                    stub.Score(message_of(WORK), timeout=10)
                with pytest.raises(grpc.RpcError):
                    stub.Score(message_of(WORK, digest="cd" * 32), timeout=10)

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        yield
    finally:
        ended.set()
        caller.join(20)


def test_numbers_follow_what_the_server_does(page: StatusPage, teacher: RunningTeacher) -> None:
    page.open(f"{teacher.http}/")
    page.until_state("ready", "takes requests")
    assert (page.shown("rates.positions"), page.shown("latency_ms.p50")) == ("0", "–")
    assert page.text("#model ~ table code") == teacher.digest
    with load(teacher):
        page.until(lambda: page.shown("rates.positions") != "0")
        before = page.shown("rates.positions"), page.shown("uptime_s")
        page.until(lambda: before != (page.shown("rates.positions"), page.shown("uptime_s")))
        page.until(lambda: page.shown("latency_ms.p99").endswith("ms"))
        page.until(lambda: page.text("#outcome-rows").split()[::3] == ["ok", "WrongTeacher"])
        page.until(lambda: page.shown("batches.requests") == "1")
        page.until(lambda: "busy over two minutes: last" in aria(page, "busy"))
    page.until(lambda: page.text("#outcome-rows").split()[2::3] == ["88%", "13%"])
    page.until(lambda: page.shown("rates.positions") == "0")
    assert "latency over two minutes: last p50" in aria(page, "p50 p95 p99")
    assert page.driver.get_log("browser") == []


def aria(page: StatusPage, lines: str) -> str:
    chart = page.driver.find_element(By.CSS_SELECTOR, f'figure[data-lines="{lines}"] svg')
    return str(chart.get_attribute("aria-label"))


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(page: StatusPage, teacher: RunningTeacher, width: int, scheme: str) -> None:
    page.open(f"{teacher.http}/", width, scheme)
    page.until_state("ready", "takes requests")
    run = page.driver.execute_script
    assert run("return innerWidth") == width
    assert run("return document.documentElement.scrollWidth") <= width
    contrast, text = run(LEAST_CONTRAST)
    assert contrast > 4.5, text
    [red] = run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 1).map(Number)")
    assert (red < 64) if scheme == "dark" else (red > 192)
    assert page.driver.get_log("browser") == []


def test_a_pointer_asks_a_chart_about_a_second(page: StatusPage, teacher: RunningTeacher) -> None:
    page.open(f"{teacher.http}/")
    page.until_state("ready", "takes requests")
    chart = page.driver.find_element(By.CSS_SELECTOR, 'figure[data-lines="positions"]')
    assert chart.text.split("\n")[-2:] == ["2 min ago", "now"]
    webdriver.ActionChains(page.driver).move_to_element(chart.find_element(By.CSS_SELECTOR, "svg")).perform()
    page.until(lambda: re.fullmatch(r"6[01] s ago\n\d+ positions/s", "\n".join(chart.text.split("\n")[-2:])))


def test_a_server_that_is_gone_and_the_one_that_takes_its_place(
    page: StatusPage, artifact: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with serve(artifact, "--http-address", address) as first:
        page.open(f"http://{address}/")
        page.until_state("ready", "takes requests")
        first.process.send_signal(signal.SIGSTOP)
        page.until_state("not reachable", "no answer; the numbers are of ")
        assert first.digest.startswith(page.shown("model.digest"))
        contrast, text = page.driver.execute_script(LEAST_CONTRAST)
        assert contrast > 4.5, text
        first.process.send_signal(signal.SIGCONT)
        page.until_state("ready", "takes requests")
        first.process.kill()
        page.until_state("not reachable", "no answer; the numbers are of ")
    other = tiny_artifact(tmp_path / "other", seed=1)
    with serve(tmp_path / "other", "--http-address", address):
        page.until_state("ready", "takes requests")
        assert page.text("#model ~ table code") == other.digest != first.digest


def test_a_server_that_leaves(page: StatusPage, artifact: Path) -> None:
    leaving = wait_until_ready(start(artifact, "--drain-delay", "6"))
    page.open(f"{leaving.http}/")
    page.until_state("ready", "takes requests")
    leaving.process.send_signal(signal.SIGTERM)
    page.until_state("leaving", "balancers should send no more")
    leaving.process.communicate(timeout=30)
    page.until_state("not reachable", "no answer")


def test_tokens(page: StatusPage, artifact: Path, tmp_path: Path) -> None:
    """A proxy may show one for people's browsers; the page says when it is no longer taken."""
    tokens, token = tmp_path / "tokens", "a-token-for-the-proxy"
    tokens.write_text(token)
    tokens.chmod(0o600)
    with serve(artifact, "--token-file", str(tokens)) as guarded:
        page.driver.execute_cdp_cmd("Network.enable", {})
        headers = {"headers": {"authorization": f"Bearer {token}"}}
        page.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", headers)
        try:
            page.open(f"{guarded.http}/")
            page.until_state("ready", "takes requests")
        finally:
            page.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
        page.until_state("not reachable", "it asks for a token or a client certificate; the numbers are of")
