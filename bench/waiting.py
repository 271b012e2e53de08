"""What the teacher costs a training step: asked step by step, asked ahead, and read from a label store.

    python -m bench.waiting

San Francisco, batches of 128 trips, whole prefixes. The teacher's process and ours have a core each, in every way of
asking. The teacher's depth is chosen so that it takes about as long for a batch as the student does. Every way runs the
same steps from the same weights, in turn; a step is all from reading the trips to the optimiser's update.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.city import DATA
from bench.cores import apart
from teacher_server.vocabulary import Grid as TeacherGrid
from tests.serving import RunningTeacher, serve, tiny_artifact
from trainer.assemble import build_student
from trainer.clock import Clock
from trainer.config import Config
from trainer.data.batches import epoch_order
from trainer.data.city import City
from trainer.data.features import Network
from trainer.data.prepare import prepare
from trainer.examples import ExampleMaker, Part
from trainer.feed import Feed
from trainer.grid import Grid, map_roads
from trainer.learner import Learner
from trainer.schedule import make_optimizer
from trainer.step import Objective
from trainer.student.hoser import HOSER
from trainer.teacher.address import connect
from trainer.teacher.pool import Pool
from trainer.teacher.stored import StoredTargets
from trainer.teacher.subject import Subject
from trainer.teacher.targets import Targets, TeacherTargets

BATCH, MAX_LEN, WAIT = 128, 1024, "distill_kl_(teacher)"
CONFIG = Config()


@dataclass(frozen=True)
class Lap:
    """Some steps in one way."""

    seconds: float
    waited: float  # for the teacher


def lap(city: City, student: HOSER, targets: Targets | None, ahead: int, steps: int) -> Lap:
    """Trains a copy of the student for some steps."""
    student = copy.deepcopy(student).train()
    clock = Clock()
    maker = ExampleMaker(Network.of(city.road_map), torch.device("cpu"), MAX_LEN, "original", clock)
    objective = Objective(0.1, 1.0, city.meta.log1p_mean, city.meta.log1p_std)
    learner = Learner(student, make_optimizer(student, CONFIG.optimizer_config), objective, clock)
    order = [
        [Part(city.trips["train"], chosen, targets)]
        for chosen in epoch_order(len(city.trips["train"]), BATCH, 0, 0)[:steps]
    ]
    start = time.perf_counter()
    for examples in Feed(maker, ahead=ahead if targets else 0).examples(order):
        learner.step(examples)
    return Lap(time.perf_counter() - start, clock.seconds[WAIT])


@contextmanager
def served(folder: Path, grid: Grid, layers: int) -> Iterator[tuple[Pool, RunningTeacher]]:
    """A teacher on the last core; this process keeps to the first."""
    tiny_artifact(
        folder, grid=TeacherGrid(**asdict(grid)), block_size=1024, n_layer=layers, n_head=4, n_embd=256, scale=0.02
    )
    with serve(folder) as server, apart(server.process.pid):
        pool = connect(f"grpc://{server.grpc}")
        assert pool is not None
        with pool:
            yield pool, server


def balanced_layers(folder: Path, city: City, grid: Grid, student: HOSER) -> int:
    """So many layers that asking step by step doubles a step's time."""
    alone = lap(city, student, None, 0, 3).seconds
    times = []
    for layers in (2, 6):
        with served(folder / f"try{layers}", grid, layers) as (pool, _):
            targets = TeacherTargets(pool, map_roads(grid, city.road_map.centres).road_to_token)
            lap(city, student, targets, 0, 1)
            times.append(lap(city, student, targets, 0, 3).waited)
    a_layer = (times[1] - times[0]) / 4
    return max(1, round(2 + (alone - times[0]) / a_layer))


def spread(values: list[float]) -> list[float]:
    return [round(v, 3) for v in (statistics.median(values), min(values), max(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps of a run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        city = prepare(options.data, folder / "cache").city
        student = build_student(CONFIG, city)
        grid = Grid.over(city.road_map.points, 0.0005)
        layers = balanced_layers(folder, city, grid, student)
        with served(folder / "teacher", grid, layers) as (pool, _):
            tokens = map_roads(grid, city.road_map.centres).road_to_token
            live = TeacherTargets(pool, tokens)
            subject = Subject(city, "train", MAX_LEN, 0, pool.description)
            stored = StoredTargets(subject.open_store(folder / "labels"), live, tokens, longest_history=None)
            ways: dict[str, tuple[Targets | None, int]] = {
                "undistilled": (None, 0), "stored": (stored, 2), "asked": (live, 0), "asked ahead": (live, 2),
            }  # fmt: skip
            for targets, ahead in ways.values():  # warm, and the store is filled
                lap(city, student, targets, ahead, options.steps)
            laps: dict[str, list[Lap]] = {name: [] for name in ways}
            for _ in range(options.runs):
                for name, (targets, ahead) in ways.items():
                    laps[name].append(lap(city, student, targets, ahead, options.steps))
    report(layers, options.steps, laps)


def report(layers: int, steps: int, laps: dict[str, list[Lap]]) -> None:
    """One JSON object a row."""
    for name, found in laps.items():
        step = spread([each.seconds / steps for each in found])
        waiting = spread([each.waited / each.seconds for each in found])
        print(json.dumps({"way": name, "seconds_a_step": step, "share_waiting": waiting, "teacher_layers": layers}))
    for row, above, below in (
        ("stored / undistilled", "stored", "undistilled"),
        ("asked / asked ahead", "asked", "asked ahead"),
    ):
        ratios = [a.seconds / b.seconds for a, b in zip(laps[above], laps[below], strict=True)]
        print(json.dumps({"row": row, "ratio": spread(ratios)}))


if __name__ == "__main__":
    main()
