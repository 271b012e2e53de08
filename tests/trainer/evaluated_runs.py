"""Folders of runs that look as if they were trained and evaluated, made in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.trainer.datasets import trips_of
from trainer.config import Config
from trainer.data.trips import Trips
from trainer.evaluate.cells import Cell
from trainer.evaluate.generated import distributions, entries
from trainer.evaluate.judge import Ground, judge
from trainer.evaluate.stored import write_evaluation
from trainer.generate.reading import Generated
from trainer.run_folder import Origin, RunFolder

ROADS = 12
CENTRES = np.random.default_rng(5).normal([10.0, 50.0], 0.02, (ROADS, 2))
GROUND = Ground.of(CENTRES, Cell(1.0))  # all roads in one cell: every trip meets a real one
STEP_S = 30
START = 1_211_000_000


def walks(rng: np.random.Generator, count: int, longest: int, seconds: float) -> Trips:
    roads = [rng.integers(0, ROADS, rng.integers(2, longest + 1)).tolist() for _ in range(count)]
    starts = START + 600 * np.arange(count)
    return trips_of(
        roads, [(s + np.cumsum(rng.poisson(seconds, len(r)))).tolist() for r, s in zip(roads, starts, strict=True)]
    )


def evaluated_run(
    folder: Path,
    *,
    seed: int = 42,
    teacher: str = "none",
    weight: float = 0.1,
    trips: int = 40,
    slower: float = 0.0,
    figures: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
    same_requests: bool = True,
) -> Path:
    """A run with trips of its own; `slower`: seconds more a step; `figures`, `origin`, `arrays`: changes."""
    rng = np.random.default_rng((seed, int(1000 * weight), int(slower)))
    config = Config().model_copy(update={"distill": Config().distill.model_copy(update={"lambda_": weight})}).plain()
    config["training"]["seed"] = seed
    about = {"version": "0.1.0", "commit": "c" * 40, "data": "/none", "skip_bad": False} | (origin or {})
    RunFolder(folder).create(Origin(config, "d" * 64, teacher), config, about)
    generated = walks(rng, trips, 8, STEP_S + slower)
    firsts = generated.offsets[:-1]
    generated.roads[firsts] = np.arange(trips) % ROADS
    late = generated.times[firsts] - (START + 600 * np.arange(trips))
    generated.times[:] -= np.repeat(late, generated.lengths)
    real = walks(np.random.default_rng(0), 60, 8, STEP_S)
    asked = (np.arange(trips) + (1 if same_requests else 2)) % ROADS
    found = Generated(generated, asked, np.arange(trips) + 2, {})  # type: ignore[arg-type]
    judged = judge(generated, real, GROUND, asked)
    accuracy = 0.8 + rng.normal(0, 0.01)
    next_step = {"next_step_accuracy": accuracy, "choice_accuracy": accuracy - 0.1, "loss_next_step": 1 - accuracy}
    next_step |= {"mape_log1p": 0.1, "mape_seconds": None}
    told = {"model_digest": f"{seed:064x}", "data_fingerprint": "d" * 64, "split": "test", "od_cell": [1.0, "degree"]}
    told |= {
        "version": "0.1.0",
        "commit": "c" * 40,
        **next_step,
        **judged.figures,
        "distributions": distributions(judged),
    }
    write_evaluation(RunFolder(folder).evaluation, told | (figures or {}), entries(found, judged) | (arrays or {}))
    return folder
