"""What the autoscalers ask is answered by a real Prometheus that scrapes a real teacher."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.kubernetes.manifests import DEPLOY, combined, one, render
from tests.scraped import ask, prometheus, result
from tests.serving import RunningTeacher

NAMESPACE, POD = "hoser-distill", "teacher-0"


def adapted() -> dict[str, Any]:
    """The adapter's only rule."""
    (rule,) = yaml.safe_load((DEPLOY / "components/hpa/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    return dict(rule)


def filled(rule: dict[str, Any]) -> str:
    """The query that the adapter makes of its rule for all Pods of the namespace."""
    labels = {resource["resource"]: label for label, resource in rule["resources"]["overrides"].items()}
    matchers = f'{labels["namespace"]}="{NAMESPACE}",{labels["pod"]}=~"{POD}"'
    return str(rule["metricsQuery"].replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", labels["pod"]))


def test_the_autoscaler_s_metric_is_the_adapter_s(tmp_path: Path) -> None:
    objects = render(combined(tmp_path / "mine", "cpu", "hpa"))
    (metric,) = one(objects, "HorizontalPodAutoscaler", "teacher")["spec"]["metrics"]
    rule = adapted()
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert re.match(rule["name"]["matches"], rule["seriesQuery"].partition("{")[0])


def test_every_metric_is_one_of_the_server(teacher: RunningTeacher, tmp_path: Path) -> None:
    page = httpx.get(f"{teacher.http}/metrics").text
    texts = [file.read_text() for file in (DEPLOY / "components").rglob("*.yaml")]
    names = {name for text in texts for name in re.findall(r"\bteacher_[a-z_]+_(?:sum|count|total|bucket)\b", text)}
    assert names == {"teacher_request_queue_seconds_sum", "teacher_request_queue_seconds_count"}
    assert {name for name in names if f"\n{name} " not in page and f"\n{name}{{" not in page} == set()


def waited_for(server: str, queries: list[str], enough: Callable[[list[float]], bool]) -> list[float]:
    """The queries' values, once each has one and they are what is waited for."""
    deadline, seen = time.monotonic() + 30, None
    while time.monotonic() < deadline:
        found = [result(server, query) for query in queries]
        if all(len(series) == 1 for series in found):
            seen = [float(series[0]["value"][1]) for series in found]
            if enough(seen):
                return seen
        time.sleep(0.1)
    raise AssertionError(f"{queries} are {seen}")


@pytest.mark.system
def test_prometheus_answers_both_autoscalers(teacher: RunningTeacher, tmp_path: Path) -> None:
    assert teacher.http is not None
    objects = render(combined(tmp_path / "mine", "cpu", "keda"))
    (trigger,) = one(objects, "ScaledObject", "teacher")["spec"]["triggers"]
    queries = [filled(adapted()), trigger["metadata"]["query"]]
    with prometheus(teacher.http.removeprefix("http://"), tmp_path, namespace=NAMESPACE, pod=POD) as server:
        idle = waited_for(server, queries, lambda values: len(values) == 2)
        assert idle == [0.0, 0.0]
        ask(teacher, times=5)
        busy = waited_for(server, queries, lambda values: all(value > 0 for value in values))
        assert busy[0] == pytest.approx(busy[1], rel=0.5)
        assert max(busy) < 1  # seconds, of requests that met an idle server
        (series,) = result(server, queries[0])
        assert series["metric"] == {"pod": POD}
        assert result(server, adapted()["seriesQuery"])
