"""compose.yaml's `observe` beside three replicas and a trainer: real Prometheus, teachers, trainer and name server."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compose import read_compose
from tests.integration.line import Line
from tests.observed import DASHBOARDS, PROMETHEUS, Panel, alerts, asked, dashboard, hurried, measured, panels
from tests.sandbox import Sandbox

pytestmark = [pytest.mark.system, pytest.mark.slow]

TEACHER = "teacher-cpu"
ADDRESSES = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
NEW = "127.0.0.5"
PANELS = [panel for file in DASHBOARDS for panel in panels(file)]
TRAIN = ["--set=optimizer_config.max_epoch=1", "--set=optimizer_config.batch_size=8"]
SECONDS = 60.0


class Observed:
    """A sandbox with a Prometheus server in it."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box

    def ask(self, page: str, **parameters: str) -> Any:
        """`data` of Prometheus's answer; None before it is up."""
        words = [word for name, value in parameters.items() for word in ("--data-urlencode", f"{name}={value}")]
        answer = self.box.curl("--get", f"http://127.0.0.1:9090/api/v1/{page}", *words)
        if not answer:
            return None
        content = json.loads(answer)
        assert content["status"] == "success", content
        return content["data"]

    def values(self, query: str) -> list[float]:
        data = self.ask("query", query=query)
        return [float(one["value"][1]) for one in data["result"]] if data else []

    def firing(self) -> set[tuple[str, str]]:
        """(alert, address or nothing) of all that fire."""
        found = [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {(a["labels"]["alertname"], a["labels"].get("instance", "").partition(":")[0]) for a in found}


def until(told: Callable[[], Any], expected: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while (seen := told()) != expected:
        assert time.monotonic() < deadline, f"{seen}, not {expected}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def observed(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """All of it, after an epoch of the trainer's own service."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts and namespaces of its own")
    services = read_compose()
    with Sandbox(tmp_path_factory.mktemp("box"), services) as box:
        shutil.copytree(line.teacher, box.volume("artifact", "10001:10001"), dirs_exist_ok=True)
        shutil.copytree(line.data, box.volume("data", "10001:10001"), dirs_exist_ok=True)
        config = box.folder / "deploy/observe/prometheus"
        config.mkdir(parents=True)
        for file in PROMETHEUS.iterdir():
            (config / file.name).write_text(hurried(file.read_text()))
        box.scale(TEACHER, ADDRESSES)
        for address in ADDRESSES:
            box.up_at(TEACHER, address)
        box.up("prometheus")
        prometheus = Observed(box)
        until(lambda: prometheus.values("sum(teacher_ready)"), [3])
        status, _, errors = box.run("trainer-cpu", [*services["trainer-cpu"].argv, *TRAIN])
        assert status == 0, errors
        yield prometheus


def test_every_replica_is_scraped(observed: Observed) -> None:
    targets = observed.ask("targets")["activeTargets"]
    assert sorted(target["labels"]["instance"] for target in targets) == [f"{each}:8000" for each in ADDRESSES]
    assert {target["labels"]["service"] for target in targets} == {TEACHER}
    assert {target["health"] for target in targets} == {"up"}


def test_the_trainer_has_asked_every_replica(observed: Observed) -> None:
    answered = observed.values('sum by (instance) (teacher_requests_total{outcome="ok"})')
    print(f"answered: {answered}")
    assert len(answered) == 3
    assert min(answered) > 0.15 * sum(answered)


@pytest.mark.parametrize("panel", [each for each in PANELS if each.queries], ids=lambda panel: panel.title)
def test_a_panel_has_data(observed: Observed, panel: Panel) -> None:
    for query in panel.queries:
        found = observed.values(asked(query, "5m"))
        assert found, query
        assert all(map(math.isfinite, found)), query


def test_the_replicas_can_be_chosen(observed: Observed) -> None:
    for file in DASHBOARDS:
        (variable,) = dashboard(file)["templating"]["list"]
        assert variable["query"] == 'label_values(up{job="teacher"}, instance)'
        chosen = observed.ask("label/instance/values", **{"match[]": 'up{job="teacher"}'})
        assert chosen == [f"{each}:8000" for each in ADDRESSES]


@pytest.mark.parametrize("name", alerts())
def test_an_alert_looks_at_what_is_there(observed: Observed, name: str) -> None:
    assert observed.values(measured(alerts()[name]["expr"]))


def test_alerts_fire_and_clear(observed: Observed) -> None:
    box, (first, *others) = observed.box, [observed.box.running[f"{TEACHER} {each}"] for each in ADDRESSES]
    until(observed.firing, set())
    loaded = observed.ask("rules")["groups"]
    assert {rule["name"] for group in loaded for rule in group["rules"]} == set(alerts())

    first.send_signal(signal.SIGSTOP)  # frozen: still listed, but silent
    until(observed.firing, {("TeacherSilent", ADDRESSES[0])})
    for teacher in others:
        teacher.send_signal(signal.SIGSTOP)
    until(observed.firing, {("NoTeacher", ""), *(("TeacherSilent", each) for each in ADDRESSES)})
    for teacher in (first, *others):
        teacher.send_signal(signal.SIGCONT)
    until(observed.firing, set())

    first.send_signal(signal.SIGTERM)  # ended: the engine's name server lists it no more
    box.scale(TEACHER, ADDRESSES[1:])
    until(observed.firing, {("TeacherGone", "")})
    assert first.wait(box.services[TEACHER].stop_seconds) == 0
    box.up_at(TEACHER, NEW)
    box.scale(TEACHER, [*ADDRESSES[1:], NEW])
    until(lambda: observed.values("sum(teacher_ready)"), [3])
    until(observed.firing, set())
