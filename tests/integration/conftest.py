"""One small experiment for all integration tests: data, teacher, and two runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.line import Line, city_teacher
from tests.integration.runs import epochs, train
from tests.serving import RunningTeacher, serve
from trainer.data.prepare import prepare
from trainer.data.sample_city import write_sample_city


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp("line")
    write_sample_city(root / "city", roads=150, trips=120, seed=5)
    city = prepare(root / "city", root / "cache").city
    city_teacher(root / "teacher", city)
    return Line(root / "city", root / "cache", root / "teacher", city)


@pytest.fixture(scope="session")
def served(line: Line) -> Iterator[RunningTeacher]:
    with serve(line.teacher) as running:
        yield running


@pytest.fixture(scope="session")
def plain_run(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "run"
    train(line, out, "--teacher", "none", *epochs(2))
    return out


@pytest.fixture(scope="session")
def taught_run(line: Line, served: RunningTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "run"
    train(line, out, "--teacher", f"grpc://{served.grpc}", *epochs(2))
    return out
