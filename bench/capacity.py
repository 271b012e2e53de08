"""Whether `trainer capacity` foretells what a real teacher does.

    python -m bench.capacity

A real server has a core, the students the other one. First its times are measured as docs/capacity.md says: from the
counters of its metrics, once with one caller and once with many. Then students ask it through the wire as a training
does: each sleeps through a step, and awaits the answer that it has asked for some steps before. Few students, about as
many as one teacher bears, and too many; what the model foretells of each is printed beside what was measured. It exits
with 1 when a speed or a time of an answer is more than 15 % from what was foretold: let the machine do nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bench.cores import apart
from teacher_server.channel import ClientFiles
from teacher_server.loadgen.bench import Target
from teacher_server.loadgen.doors import Door
from teacher_server.loadgen.walks import Shape, draw_walks
from tests.serving import RunningTeacher, counted, serve, tiny_artifact
from trainer.capacity.model import Fleet, Service, simulate

SHAPE = Shape(trips=32, steps=40, window=0)
ROW_TOKENS = SHAPE.trips * (SHAPE.steps + 1)
MOST = 4  # requests of a batch
TIMEOUT = 120.0
STEP_S, AHEAD = 0.6, 2
COUNTED = 0.8  # of the steps; what is measured before all are under way is left out
ENOUGH = 120  # answers, for a percentile of 95
NEAR = 0.15  # how far a figure may be from what was foretold
Times = list[tuple[float, float]]  # seconds of each request: until its answer, and on the device


@contextmanager
def served(folder: Path) -> Iterator[RunningTeacher]:
    """A teacher on the last core; this process keeps to the first."""
    tiny_artifact(folder, rows=60, columns=60, block_size=64, n_layer=6, n_head=4, n_embd=256, scale=0.02)
    with serve(folder, "--batch-tokens", str(MOST * ROW_TOKENS)) as server, apart(server.process.pid):
        yield server


class Asker:
    """Questions that are made before anything is measured, asked in turn."""

    def __init__(self, door: Door, messages: list[bytes]) -> None:
        self.door, self.messages, self.times = door, cycle(messages), Times()

    async def ask(self) -> None:
        begun = perf_counter()
        _, compute_us = await self.door.ask(next(self.messages), TIMEOUT)
        self.times.append((perf_counter() - begun, compute_us / 1e6))


def batches(server: RunningTeacher) -> np.ndarray[Any, np.dtype[np.float64]]:
    """So far: batches, requests in them, seconds that they took."""
    names = ("teacher_batch_duration_seconds_count", "teacher_batch_requests_sum", "teacher_batch_duration_seconds_sum")
    return np.array([counted(server, name) for name in names])


async def measured(server: RunningTeacher, asker: Asker, seconds: float) -> Service:
    """A line through two loads: one caller, and as many as fill batches."""
    means = []
    for callers in (1, 2 * MOST):
        asker.times.clear()
        before, ends = batches(server), perf_counter() + seconds

        async def call_until(end: float) -> None:
            while perf_counter() < end:
                await asker.ask()

        await asyncio.gather(*(call_until(ends) for _ in range(callers)))
        count, questions, took = batches(server) - before
        means.append((questions / count, took / count))
        if callers == 1:
            computed = [compute for _, compute in asker.times]
            spread = statistics.pstdev(computed) / statistics.mean(computed)
            around = statistics.median(answer - compute for answer, compute in asker.times)
    (few, short), (many, long) = means
    question_s = (long - short) / (many - few)
    return Service(short - question_s * few, question_s, around, spread, MOST)


async def students(asker: Asker, count: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
    """What `simulate` counts, of real questions."""
    asker.times.clear()
    taken, waits = 0, 0.0
    begun, first, last = 0.0, round(count * steps * (1 - COUNTED)), count * steps
    done = asyncio.Event()

    async def learn(start: float) -> None:
        nonlocal taken, waits, begun
        await asyncio.sleep(start)
        asked = deque(asyncio.create_task(asker.ask()) for _ in range(AHEAD))
        while not done.is_set():
            asked.append(asyncio.create_task(asker.ask()))
            from_ = perf_counter()
            await asked.popleft()
            waits += (perf_counter() - from_) * bool(begun)
            await asyncio.sleep(STEP_S)
            taken += 1
            if taken == first:
                begun = perf_counter()
                asker.times.clear()
            elif taken == last:
                done.set()
        for task in asked:
            await task

    learning = [asyncio.create_task(learn(float(start))) for start in rng.uniform(0, STEP_S, count)]
    await done.wait()
    seconds, answers = perf_counter() - begun, [answer for answer, _ in asker.times]
    await asyncio.gather(*learning)
    return figures((last - first) / seconds / count, waits / seconds / count, np.array(answers))


def figures(steps: float, waited: float, answers: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    found = {"steps a second": steps, "waited": waited, "answer p50": float(np.percentile(answers, 50))}
    return {
        name: round(value, 4) for name, value in (found | {"answer p95": float(np.percentile(answers, 95))}).items()
    }


async def points(server: RunningTeacher, seconds: float, steps: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    door = Target(server.grpc).open(ClientFiles(), SHAPE)
    try:
        rows, columns = await door.extent()
        asker = Asker(door, [door.message(draw_walks(SHAPE, rows, columns, rng)) for _ in range(64)])
        await measured(server, asker, 2)  # warm
        service = await measured(server, asker, seconds)
        bears = max(2, round(service.most_a_second * STEP_S))
        found: dict[str, Any] = {"service": service.__dict__}
        for count in (max(1, bears // 3), bears, bears * 2):
            outcome = simulate(service, Fleet(count, 1, STEP_S, AHEAD), 500, seed)
            told = figures(outcome.steps_a_second, outcome.waited, outcome.answers_s)
            real = await students(asker, count, max(steps, math.ceil(ENOUGH / COUNTED / count)), rng)
            ratios = {name: round(told[name] / real[name], 2) for name in told if name != "waited"}
            found[f"{count} students"] = {"foretold": told, "measured": real, "foretold / measured": ratios}
        return found
    finally:
        await door.close()


def astray(found: dict[str, Any]) -> list[str]:
    """What was foretold wrongly, a clause each."""
    return [
        f"{point}: {name} {each['foretold'][name]}, measured {each['measured'][name]}"
        for point, each in found.items()
        for name, ratio in each.get("foretold / measured", {}).items()
        if abs(ratio - 1) > NEAR
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each of the two measured loads")
    parser.add_argument("--steps", type=int, default=50, help="of each student, more where there is but one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "teacher") as server:
        found = asyncio.run(points(server, options.seconds, options.steps, options.seed))
    print(json.dumps(found, indent=2))
    if wrong := astray(found):
        sys.exit(f"more than {NEAR:.0%} from what was foretold: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
