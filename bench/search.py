"""`python -m bench.search`: 1,000 routes of San Francisco core by a trained student, against the plain search.

The plain search (tests/plain_search.py) asks the student about one path at a time and computes all of it anew. It is
timed on some of the trips and extrapolated by its expansions; of these trips all routes and times must be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from rich.console import Console

from bench.__main__ import table_of
from bench.city import DATA
from bench.compare import Comparison
from tests.plain_search import NextRoads, Walker, plain_search
from trainer.assemble import load_trained
from trainer.data.features import Network
from trainer.data.prepare import prepare
from trainer.generate.demand import draw_demand
from trainer.generate.expander import StepTimes
from trainer.generate.route import Path as Route_path
from trainer.generate.route import Route
from trainer.generate.search import SearchSettings
from trainer.generate.workers import Recipe, finding
from trainer.run_folder import RunFolder

CORE = DATA.with_name("san_francisco_core")
TRIPS, PLAIN_TRIPS = 1_000, 200


class OnePath(Walker):
    """Also a beam's paths are asked about one by one."""

    def next_roads(self, paths: Sequence[Route_path], destination: int) -> list[NextRoads]:
        return [super(OnePath, self).next_roads([path], destination)[0] for path in paths]


def train(out: Path, cache: Path) -> None:
    """A student of four epochs."""
    words = ["--data", CORE, "--cache", cache, "--out", out, "--teacher", "none", "--cpu-threads", 1]
    epochs = ["--set", "optimizer_config.max_epoch=4"]
    subprocess.run([sys.executable, "-m", "trainer", "train", *map(str, words), *epochs], check=True)


def recipe_of(run: Path, cache: Path) -> Recipe:
    """1,000 trips with the ends and start times of test trips."""
    city = prepare(CORE, cache).city
    student, config, card = load_trained(RunFolder(run).best, city)
    return Recipe(
        student,
        Network.of(city.road_map),
        StepTimes(card.log1p_mean, card.log1p_std),
        config.trajectory_encoder_config.max_len,
        config.data.angle,
        draw_demand(city.trips["test"], TRIPS, 0),
        SearchSettings(),
        torch.device("cpu"),
        threads=1,
    )


def walker_of(recipe: Recipe, kind: type[Walker]) -> Walker:
    mean, std = recipe.times.log1p_mean, recipe.times.log1p_std
    return kind(recipe.student, recipe.network, log1p_mean=mean, log1p_std=std, max_steps=recipe.max_steps)


def ours(recipe: Recipe, workers: int) -> tuple[float, list[Route]]:
    """Seconds for all trips, all that a command does after loading included, and their routes."""
    begun = perf_counter()
    with finding(workers, recipe, range(TRIPS)) as trips:
        found = {trip.index: trip.route for trip in trips}
    return perf_counter() - begun, [found[i] for i in range(TRIPS)]


def plain(recipe: Recipe, walker: Walker, trips: range) -> tuple[float, list[Route]]:
    demand, begun = recipe.demand, perf_counter()
    columns = (*demand.ends, demand.starts)
    ends = [tuple(int(column[i]) for column in columns) for i in trips]
    routes = [plain_search(walker, *end, recipe.settings, i) for i, end in zip(trips, ends, strict=True)]
    return perf_counter() - begun, routes


def check_equal(found: Sequence[Route], expected: Sequence[Route], first: int) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True), first):
        if (a.path.roads, a.path.times, a.reached, a.expansions) != (
            b.path.roads, b.path.times, b.reached, b.expansions,
        ):  # fmt: skip
            raise ValueError(f"trip {i}: {a} is not {b}")


def measure(recipe: Recipe, name: str, walker: Walker, runs: int) -> list[Comparison]:
    """Both ways in turn, ours with one process and with one a core. Raises ValueError where routes differ."""
    processes = sorted({1, len(os.sched_getaffinity(0))})
    plain_s: list[float] = []
    ours_s: dict[int, list[float]] = {workers: [] for workers in processes}
    part = PLAIN_TRIPS // runs
    for run in range(runs):
        for workers in processes:
            seconds, routes = ours(recipe, workers)
            ours_s[workers].append(seconds)
        some = range(run * part, (run + 1) * part)
        seconds, expected = plain(recipe, walker, some)
        check_equal(routes[some.start : some.stop], expected, some.start)
        share = sum(route.expansions for route in expected) / sum(route.expansions for route in routes)
        plain_s.append(seconds / share)
    return [
        Comparison(f"{name}, {workers} process{'es' * (workers > 1)}", TRIPS, "trips", tuple(plain_s), tuple(s))
        for workers, s in ours_s.items()
    ]


def main(
    out: Annotated[Path | None, typer.Option(help="JSON file for all timings.")] = None,
    run: Annotated[Path | None, typer.Option(help="A trained run on San Francisco core (default: train one).")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each way.")] = 5,
) -> None:
    """Measure best-first search and beams of four, with one CPU thread a process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        folder = run or Path(scratch) / "run"
        if not run:
            train(folder, cache)
        recipe = recipe_of(folder, cache)
        beam = replace(recipe, settings=SearchSettings("beam"))
        ours(recipe, 1)  # compiles
        found = [
            *measure(recipe, "best-first", walker_of(recipe, Walker), runs),
            *measure(beam, "beam 4", walker_of(recipe, OnePath), runs),
            *measure(beam, "beam 4, plain a level at once", walker_of(recipe, Walker), runs),
        ]
    if out:
        out.write_text(json.dumps({"comparisons": [each.to_json() for each in found]}, indent=1) + "\n")
    Console().print(table_of(found))


if __name__ == "__main__":
    typer.run(main)
