"""Tests of a CUDA device: `make gpu-check`. Elsewhere there is nothing to test, so they are not even collected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration.line import Line, city_teacher
from tests.trainer.golden_data import Golden, load_golden
from trainer.data.prepare import prepare
from trainer.data.sample_city import write_sample_city

collect_ignore_glob = [] if torch.cuda.is_available() else ["test_*.py"]


@pytest.fixture(scope="session")
def golden_case(golden: Path, core_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return load_golden(golden, core_data, tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("line")
    write_sample_city(root / "city", roads=150, trips=120, seed=5)
    city = prepare(root / "city", root / "cache").city
    city_teacher(root / "teacher", city)
    return Line(root / "city", root / "cache", root / "teacher", city)
