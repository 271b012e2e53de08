"""What every test may use: the golden vectors and the real data, which lie beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: put the project's shared folder beside the checkout to run this test")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden vectors."""
    return _shared("golden")


@pytest.fixture(scope="session")
def core_data() -> Path:
    """Real trips: the core of San Francisco, in HOSER format."""
    return _shared("data/san_francisco_core")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI=true, a test that skips has failed: nothing may stay unseen there."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure with CI=true: {report.longrepr}"
    return report
