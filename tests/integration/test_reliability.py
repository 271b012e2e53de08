"""Short runs of what `make fuzz` and its like do for minutes, against real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def scenario(*words: str) -> dict[str, Any]:
    """What the scenario found; every promise must have been kept."""
    command = [sys.executable, "-m", "bench.reliability", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_spoilt_requests_through_all_doors() -> None:
    found = scenario("fuzz", "--requests", "600")
    assert found["requests"] > 500
    for door in ("native", "native trips", "inference", "rest"):
        assert found["seen"][f"{door}, right: OK"] > 0
    assert found["seen"]["openapi, negative: 400"] > 0


def test_mixed_callers() -> None:
    outcomes = scenario("soak", "--seconds", "6")["outcomes"]
    assert outcomes["OK"] > outcomes["DEADLINE_EXCEEDED"] > 0


def test_right_callers_beside_bad_ones() -> None:
    found = scenario("mishaps", "--seconds", "4")
    assert min(found["bad_callers"].values()) > 0
    assert found["sigkill"]["calls"]["UNAVAILABLE"] > 0
