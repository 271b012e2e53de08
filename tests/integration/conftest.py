"""A small city, prepared, and a tiny teacher whose grid covers it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from teacher_server.vocabulary import Grid as TeacherGrid
from tests.serving import RunningTeacher, serve, tiny_artifact
from trainer.data.city import City
from trainer.data.prepare import prepare
from trainer.data.sample_city import write_sample_city
from trainer.grid import Grid


@dataclass(frozen=True)
class Line:
    """Folders of one small experiment."""

    data: Path
    cache: Path
    teacher: Path
    city: City


def city_teacher(folder: Path, city: City, seed: int = 0) -> str:
    """Writes a random teacher over a city's map; returns its digest."""
    grid = TeacherGrid(**asdict(Grid.over(city.road_map.points, 0.001)))
    return tiny_artifact(folder, grid=grid, block_size=48, scale=0.3, seed=seed).digest


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
