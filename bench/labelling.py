"""Bulk labelling of San Francisco's train set: tokens that a real server computes, against one row a step.

    python -m bench.labelling            # window 4, a teacher of 8 x 768; or: --size small --windows 1 4 7 full

The plain reference is a row of SOT and the last w tokens for every step. What the server computed is what its own
counters say, and must be what `trainer label`'s requests come to when they are packed here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.city import CELL, DATA
from bench.engine import REAL, SMALL
from teacher_server.packing import Packer, ScoreWork
from teacher_server.vocabulary import Grid as TeacherGrid
from tests.serving import counted, serve, tiny_artifact
from trainer.data.city import City
from trainer.data.prepare import prepare
from trainer.grid import Grid, map_roads
from trainer.teacher.layout import Steps, all_steps
from trainer.teacher.protocol import Query
from trainer.teacher.questions import Cells, Questions, TripQuestions, WindowQuestions

BUDGET = 16_384  # a CPU server's own


def plain_tokens(steps: Steps, window: int) -> int:
    """Of one row a step: SOT and the tokens that the step sees."""
    seen = np.arange(len(steps.roads)) - np.repeat(steps.offsets[:-1], np.diff(steps.offsets)) + 1
    return int((np.minimum(seen, window or len(seen)) + 1).sum())


def least_tokens(questions: Questions, packer: Packer) -> int:
    """What a server computes for the requests, each of which it cuts to its own budget."""
    plans = (packer.plan(_work(questions.query(request))) for request in range(len(questions.row_tokens)))
    return sum(packer.pack([part]).nodes for plan in plans if plan.row_tokens for part in plan.parts(BUDGET))


def _work(query: Query) -> ScoreWork:
    windows = np.full(len(query.lengths), query.window)
    return ScoreWork(query.tokens, query.lengths, query.scored, windows, query.candidates, query.counts)


def measure(folder: Path, city: City, grid: Grid, window: int, size: str) -> dict[str, object]:
    """One label run with a fresh server."""
    steps, model = all_steps(city.trips["train"], city.road_map, 1024), {"real": REAL, "small": SMALL}[size]
    cells = Cells(map_roads(grid, city.road_map.centres).road_to_token, city.road_map)
    questions = WindowQuestions(steps, cells, window) if window else TripQuestions(steps, cells, model.block_size)
    teacher = folder / f"teacher-{window}"
    tiny_artifact(
        teacher, grid=TeacherGrid(**asdict(grid)), block_size=model.block_size, n_layer=model.n_layer,
        n_head=model.n_head, n_embd=model.n_embd, scale=0.02,
    )  # fmt: skip
    expected = least_tokens(questions, Packer(model.block_size, grid.cells + 2, grid.cells, BUDGET))
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    with serve(teacher, "--batch-tokens", str(BUDGET), env=threads) as server:
        begin, warm_up = time.perf_counter(), counted(server, "teacher_tokens_total")
        where = ["--data", str(DATA), "--cache", str(folder / "cache"), "--labels", str(folder / f"labels-{window}")]
        command = [sys.executable, "-m", "trainer", "label", *where, "--teacher", f"grpc://{server.grpc}"]
        subprocess.run([*command, "--set", f"distill.window={window or 'full'}"], check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - begin
        computed = int(counted(server, "teacher_tokens_total") - warm_up)
    plain = plain_tokens(steps, window)
    return {
        "window": window or "full",
        "steps": len(steps.roads),
        "requests": len(questions.row_tokens),
        "plain_tokens": plain,
        "computed_tokens": computed,
        "as_packed_here": expected,
        "ratio": round(plain / computed, 1),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", nargs="+", default=["4"], help="last tokens, or full")
    parser.add_argument("--size", choices=("small", "real"), default="real")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        city = prepare(DATA, folder / "cache").city
        grid = Grid.over(city.road_map.points, CELL)
        for window in options.windows:
            row = measure(folder, city, grid, 0 if window == "full" else int(window), options.size)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
