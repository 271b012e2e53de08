"""`deploy/observe` on paper: Prometheus's files by promtool, Grafana's against its own models.

tests/integration/test_observed.py runs Prometheus with them. Grafana itself is run by no test.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from teacher_server.serve import STUCK_SECONDS
from tests.compose import ROOT, read_compose
from tests.observed import DASHBOARDS, GRAFANA, PROMETHEUS, alerts, dashboard, panels

SERVICES = read_compose()
DOCUMENT = (ROOT / "docs" / "observing.md").read_text()
UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.system
def test_promtool_approves_of_the_configuration_and_the_rules() -> None:
    assert "1 rule files found" in promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert f"{len(alerts())} rules found" in promtool("check", "rules", PROMETHEUS / "alerts.yml")


@pytest.mark.system
def test_each_alert_fires_and_clears_when_it_should() -> None:
    file = PROMETHEUS / "alerts_test.yml"
    assert "SUCCESS" in promtool("test", "rules", file)
    cases = [case for test in yaml.safe_load(file.read_text())["tests"] for case in test["alert_rule_test"]]
    for name in alerts():
        told = [bool(case.get("exp_alerts")) for case in cases if case["alertname"] == name]
        assert True in told, f"{name} never fires"
        assert False in told, f"{name} is never silent"


def test_the_document_says_what_to_do_about_each_alert() -> None:
    told = re.findall(r"^### (\w+)$", DOCUMENT, flags=re.M)
    assert told == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["annotations"]["summary"]


def test_prometheus_asks_for_the_teachers_of_the_compose_file() -> None:
    scrape = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    (teachers,) = [job for job in scrape if job["job_name"] == "teacher"]
    (names,) = teachers["dns_sd_configs"]
    serving = {name: service for name, service in SERVICES.items() if service.argv == ["teacher", "serve"]}
    assert set(names["names"]) == set(serving)
    for service in serving.values():
        assert service.environment["TEACHER_HTTP_ADDRESS"] == f"0.0.0.0:{names['port']}"
        assert "container_name" not in service.plain  # or there could be one replica only


def test_replicas_can_be_published() -> None:
    """One port of the host is one replica's: `--scale` needs as many as there are replicas."""
    scaled = read_compose({"GRPC_PORTS": "8101-8103", "HTTP_PORTS": "8201-8203"})["teacher"]
    assert scaled.ports == ["127.0.0.1:8101-8103:8001", "127.0.0.1:8201-8203:8000"]
    assert (
        "GRPC_PORTS=8101-8103 HTTP_PORTS=8201-8203 docker compose up --scale teacher=3 trainer"
        in (ROOT / "docs/containers.md").read_text()
    )


def test_grafana_is_provisioned_with_what_is_there() -> None:
    service = SERVICES["grafana"]
    (mount,) = service.mounts
    place = mount.target
    assert (ROOT / mount.source).resolve() == GRAFANA
    assert service.environment["GF_PATHS_PROVISIONING"] == f"{place}/provisioning"
    home = service.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / Path(home).relative_to(place)).is_file()
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/files.yml").read_text())["providers"]
    assert provider["options"]["path"] == f"{place}/dashboards"
    source, interval = data_source(), yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]
    (port,) = SERVICES["prometheus"].ports
    assert source["url"] == f"http://prometheus:{port.rpartition(':')[2]}"
    assert source["jsonData"]["timeInterval"] == interval["scrape_interval"]


def test_a_stuck_server_is_scraped_before_it_ends_itself() -> None:
    """Or TeacherStuck could not fire where the server ends itself, which is what the compose file's does."""
    assert SERVICES["teacher"].environment["TEACHER_EXIT_WHEN_STUCK"] == "true"
    scrapes = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]
    interval, timeout = (float(scrapes[name].removesuffix("s")) for name in ("scrape_interval", "scrape_timeout"))
    assert interval + timeout < STUCK_SECONDS


def data_source() -> dict[str, Any]:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    return dict(source)


def lost(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Where `theirs` lacks something that `ours` has."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs[key], f"{place}.{key}") if key in theirs else [f"{place}.{key}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(a, b, f"{place}[{i}]")
    elif ours != theirs:
        yield place


def as_grafana_has_it(plain: dict[str, Any]) -> Any:
    """A dashboard through Grafana's own models, which drop what Grafana does not know."""
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(plain), cls=JSONEncoder))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_a_dashboard_says_nothing_that_grafana_does_not_know(file: Path) -> None:
    plain = dashboard(file)
    assert list(lost(plain, as_grafana_has_it(plain))) == []
    plain["panels"][0]["fieldConfig"]["defaults"]["unti"] = "s"
    plain["panels"][0]["options"]["colourMode"] = "value"
    wrong = list(lost(plain, as_grafana_has_it(plain)))
    assert wrong == [".panels[0].fieldConfig.defaults.unti", ".panels[0].options.colourMode"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_a_dashboard_is_whole(file: Path) -> None:
    plain, reference = dashboard(file), {"type": data_source()["type"], "uid": data_source()["uid"]}
    ids = [panel["id"] for panel in plain["panels"]]
    assert len(set(ids)) == len(ids)
    for variable in plain["templating"]["list"]:
        assert variable["datasource"] == reference
    for panel in panels(file):
        assert panel.plain["description"], panel.title
        if panel.plain["type"] == "alertlist":
            assert panel.plain["options"]["datasource"] == data_source()["name"]
            continue
        assert panel.plain["datasource"] == reference
        assert panel.plain["fieldConfig"]["defaults"]["unit"] in UNITS, panel.title
        assert [target["datasource"] for target in panel.plain["targets"]] == [reference] * len(panel.queries)
        names = [target["refId"] for target in panel.plain["targets"]]
        assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_no_panel_hides_another(file: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(file)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
