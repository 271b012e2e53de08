"""Short runs of what `make hosts` does for minutes: trainers and teachers, each on a host of its own, and a proxy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]


def hosts(*words: str) -> dict[str, Any]:
    """What was found; every promise must have been kept."""
    command = [sys.executable, "-m", "bench.hosts", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("hosts: skipped: "):
        pytest.skip(done.stdout)
    return dict(json.loads(done.stdout))


def test_a_host_is_cut_off_loses_its_power_and_comes_back() -> None:
    found = hosts("half-open", "--pace", "0.6")["half-open"]
    assert sum(found["asked_again"]) > 0


def test_a_teacher_is_killed_and_one_comes_back_as_another() -> None:
    found = hosts("kill", "replaced", "--together")["kill+replaced"]
    assert all(again > 0 for again in found["asked_again"])


def test_requests_are_spread_over_names_and_through_a_proxy() -> None:
    found = hosts("balance")
    assert all(door["answers"] > 500 for door in found.values())
    assert len(found) == 2
