"""What `deploy/observe` tells Prometheus and Grafana: alerts, dashboards and their queries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.compose import ROOT

OBSERVE = ROOT / "deploy" / "observe"
PROMETHEUS, GRAFANA = OBSERVE / "prometheus", OBSERVE / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


@dataclass(frozen=True)
class Panel:
    """One of a dashboard's, rows left out."""

    title: str
    plain: dict[str, Any]

    @property
    def queries(self) -> list[str]:
        return [target["expr"] for target in self.plain.get("targets", [])]


def dashboard(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def panels(file: Path) -> list[Panel]:
    return [Panel(plain["title"], plain) for plain in dashboard(file)["panels"] if plain["type"] != "row"]


def asked(query: str, window: str) -> str:
    """A query as Grafana sends it, for all replicas; each rate over this window."""
    filled = query.replace("$instance", ".*").replace("$__rate_interval", window)
    assert "$" not in filled, query
    return filled


def alerts() -> dict[str, dict[str, Any]]:
    """Name → rule."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def measured(expression: str) -> str:
    """What an alert looks at, whether or not it fires: 0 or 1 for each comparison, of what is there or is missed."""
    expression = re.sub(r"^absent\((.*)\)$", r"\1", expression)
    found, count = re.subn(r" (==|<|>) ", r" \1 bool ", expression)
    assert count == 1, expression
    return found


def hurried(text: str) -> str:
    """A configuration whose minutes are seconds: for tests that wait for alerts."""
    text = re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval|refresh_interval): \d+s", r"\1: 500ms", text)
    text = re.sub(r"for: \d+[sm]", "for: 1s", text)
    return re.sub(r"\[\d+m\]", "[20s]", re.sub(r"\[\d+h:\]", "[60s:]", text))
