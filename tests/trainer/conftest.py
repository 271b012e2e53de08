from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trainer.fake_teachers import Asking
from tests.trainer.golden_data import Golden, load_golden
from trainer.data.city import City
from trainer.data.prepare import prepare
from trainer.data.sample_city import write_sample_city


@pytest.fixture(scope="session")
def golden_case(golden: Path, core_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return load_golden(golden, core_data, tmp_path_factory.mktemp("golden"))


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints that failed are asked soon who they are."""
    monkeypatch.setattr("trainer.teacher.member.BACKOFF_S", 0.01)
    monkeypatch.setattr("trainer.teacher.member.LONGEST_BACKOFF_S", 0.05)


@pytest.fixture
def ask() -> Iterator[Asking]:
    """Asks a pool in a thread of its own."""
    with ThreadPoolExecutor(32) as threads:
        yield Asking(threads)


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    """A sample city of 100 roads and 60 trips, prepared; for reading only."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample_city(folder / "city", roads=100, trips=60, seed=5)
    return prepare(folder / "city", folder / "cache").city
