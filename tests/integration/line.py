"""A small city, prepared, and a tiny teacher whose grid covers it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from teacher_server.vocabulary import Grid as TeacherGrid
from tests.serving import tiny_artifact
from trainer.data.city import City
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
