"""`python -m bench.student`: a training step against the original's formulation, its memory, and the data's way to it.

San Francisco, 128 trips a step, float32; both forms have the same weights, trips and loss.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.optim import AdamW

from bench.city import DATA
from bench.plain_student import plain_forward
from trainer.assemble import build_student
from trainer.clock import Clock
from trainer.config import Config
from trainer.data.batches import collate
from trainer.data.city import City
from trainer.data.features import IGNORED, Network
from trainer.data.prepare import prepare
from trainer.data.roadmap import read_road_map
from trainer.data.trip_files import read_trips
from trainer.examples import Example, ExampleMaker
from trainer.learner import Learner
from trainer.losses import road_loss_sum, time_loss_sum
from trainer.schedule import make_optimizer
from trainer.step import Objective
from trainer.student.hoser import HOSER

TRIPS, STEPS_IN_MEMORY = 128, 60
Step = Callable[[Example], float]


def plain_steps(student: HOSER, objective: Objective) -> Step:
    """Optimiser steps as the original takes them, on a copy; each returns its loss."""
    own = copy.deepcopy(student)
    optimizer = AdamW(own.parameters(), lr=1e-3, weight_decay=0.1)

    def step(example: Example) -> float:
        optimizer.zero_grad()
        logits, times = plain_forward(own, example.features)
        valid = example.labels.choice != IGNORED
        choice, seconds = example.labels.choice[valid], example.labels.seconds[valid]
        road = road_loss_sum(logits[valid], choice)
        time = time_loss_sum(times[valid], choice, seconds, objective.log1p_mean, objective.log1p_std)
        loss = (road + time) / valid.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(own.parameters(), objective.max_norm)
        optimizer.step()
        return loss.item()

    return step


def our_steps(student: HOSER, objective: Objective) -> Step:
    """The trainer's steps, on a copy."""
    own = copy.deepcopy(student)
    learner = Learner(own, make_optimizer(own, Config().optimizer_config), objective)

    def step(example: Example) -> float:
        sums, _ = learner.step([example])
        return sums.means(objective)["loss"] or 0.0

    return step


STEPS = {"plain": plain_steps, "ours": our_steps}


class Bench:
    """A student with fresh weights, and random train trips."""

    def __init__(self, city: City) -> None:
        torch.manual_seed(0)
        self.city = city
        self.student = build_student(Config(), city)
        self.objective = Objective(0.0, 1.0, city.meta.log1p_mean, city.meta.log1p_std)
        self._maker = ExampleMaker(Network.of(city.road_map), torch.device("cpu"), 1024, "original", Clock())

    def example(self, seed: int, longest: int | None = None) -> Example:
        """`longest`: the steps of the longest trip."""
        steps = self.city.trips["train"].lengths - 1
        chosen = np.random.default_rng(seed).permutation(np.flatnonzero(steps <= (longest or steps.max())))[:TRIPS]
        if longest:
            chosen[0] = np.flatnonzero(steps == longest)[0]
        return self._maker.make(self.city.trips["train"], chosen)


def measure_steps(bench: Bench, runs: int) -> dict[str, Any]:
    """Seconds of both forms, in turn, each pair on other trips. Raises ValueError when their losses differ."""
    forms = {name: make(bench.student, bench.objective) for name, make in STEPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for run in range(runs + 1):
        example, losses = bench.example(run), []
        for name, step in forms.items():
            start = perf_counter()
            losses.append(step(example))
            seconds[name].append(perf_counter() - start)
        if abs(losses[0] - losses[1]) > 1e-2 * losses[0] ** 2:  # both have trained: small differences grow
            raise ValueError(f"the two forms' losses differ in step {run}: {losses}")
    seconds = {name: taken[1:] for name, taken in seconds.items()}  # the first is a warm-up
    return {**seconds, "ratios": [plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"], strict=True)]}


def measure_memory(cache: Path, threads: int) -> dict[str, float]:
    """MiB that the process grows by during a step, each form in a process of its own after one step to warm up."""
    fixed = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": str(threads)}  # what is freed goes back at once
    found = {}
    for name in STEPS:
        words = [
            sys.executable,
            "-m",
            "bench.student",
            "--cache",
            str(cache),
            "--threads",
            str(threads),
            "--grow",
            name,
        ]
        done = subprocess.run(words, env=os.environ | fixed, check=True, capture_output=True, text=True)
        found[name] = float(done.stdout)
    return found


def _growth(bench: Bench, name: str) -> float:
    step, example = STEPS[name](bench.student, bench.objective), bench.example(0, STEPS_IN_MEMORY)
    step(example)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step(example)
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """KiB, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measure_data(city: City, data: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds to put 256 trips together, and trips read, checked and indexed a second."""
    trips, rng = city.trips["train"], np.random.default_rng(0)
    road_map, _ = read_road_map(data)
    collated, read = [], []
    for _ in range(20 * runs):
        chosen = rng.permutation(len(trips))[:256]
        start = perf_counter()
        collate(trips, chosen, 1024)
        collated.append(1000 * (perf_counter() - start))
    for _ in range(runs):
        start = perf_counter()
        found, _ = read_trips(data / "train.csv", road_map, skip_bad=False)
        read.append(len(found) / (perf_counter() - start))
    return {"collate_ms": collated, "trips_per_s": read}


def main(
    data: Annotated[Path, typer.Option(help="HOSER folder.")] = DATA,
    runs: Annotated[int, typer.Option(min=1, help="Timed pairs of steps.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of both forms.")] = 2,
    cache: Annotated[Path | None, typer.Option(help="Where prepared data is kept.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
    grow: Annotated[str | None, typer.Option(help="Only print the growth of one form's step in MiB.")] = None,
) -> None:
    """Measure a training step, its memory, and the preparation of data."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = cache or Path(scratch)
        bench = Bench(prepare(data, folder).city)
        if grow:
            print(_growth(bench, grow))
            return
        found = {
            "step": measure_steps(bench, runs),
            "memory_mib": measure_memory(folder, threads),
            "data": measure_data(bench.city, data, runs),
        }
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")
    Console().print(_table(found, threads))


def _table(found: dict[str, Any], threads: int) -> Table:
    step, memory, data = found["step"], found["memory_mib"], found["data"]
    table = Table(
        "what", "plain", "ours", "ratio", title=f"{TRIPS} trips a step, {threads} threads: median (least to greatest)"
    )
    table.add_row("step", _spread(step["plain"], "s"), _spread(step["ours"], "s"), _spread(step["ratios"], "x"))
    ratio = f"1/{memory['plain'] / memory['ours']:.1f}"
    table.add_row(f"memory of a step, T {STEPS_IN_MEMORY}", *(f"{memory[n]:,.0f} MiB" for n in STEPS), ratio)
    table.add_row("256 trips put together", "", _spread(data["collate_ms"], "ms"), "")
    table.add_row("trips read and checked", "", _spread(data["trips_per_s"], "/s"), "")
    return table


def _spread(values: list[float], unit: str) -> str:
    digits = ",.0f" if statistics.median(values) > 100 else ".2f"
    low, middle, high = (f"{v:{digits}}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} {unit} ({low} to {high})"


if __name__ == "__main__":
    typer.run(main)
