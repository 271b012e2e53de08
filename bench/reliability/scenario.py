"""What all scenarios have: options, findings, requests at random, and a look at the server's process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from teacher_server.rows import ScoreWork
from tests.serving import RunningTeacher, tiny_artifact

ROWS = COLUMNS = 20
CELLS = ROWS * COLUMNS
BLOCK = 32
# For servers under test: nobody reads their log while they run, and a full pipe would stop them.
QUIET = {"TEACHER_LOG_LEVEL": "error"}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    requests: int  # of fuzz
    seconds: float  # of overload, soak and mishaps
    seed: int


@dataclass
class Findings:
    """What a scenario has measured, and every promise that was not kept."""

    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def promise(self, kept: bool, otherwise: str) -> None:
        """`otherwise`: what is wrong if the promise was not kept."""
        if not kept:
            self.broken.append(otherwise)


@dataclass(frozen=True)
class Usage:
    """What a server's process holds."""

    rss_mib: int  # resident memory
    descriptors: int
    threads: int

    @classmethod
    def of(cls, server: RunningTeacher) -> Usage:
        proc = Path(f"/proc/{server.process.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        descriptors = len(list((proc / "fd").iterdir()))
        return cls(int(status["VmRSS"].split()[0]) // 1024, descriptors, int(status["Threads"]))


def small_teacher(folder: Path) -> None:
    """One that answers so fast that requests, not the model, are what is measured."""
    tiny_artifact(folder, rows=ROWS, columns=COLUMNS, block_size=BLOCK, scale=0.1, n_embd=32, n_layer=2)


def random_work(rng: np.random.Generator, trips: int, steps: int, window: int) -> ScoreWork:
    """`trips` histories of up to `steps` cells, up to 5 candidates at each scored position."""
    lengths = rng.integers(1, steps + 1, trips)
    scored = np.array([rng.integers(1, length + 1) for length in lengths])
    counts = rng.integers(0, 6, int(scored.sum()))
    return ScoreWork(
        rng.integers(0, CELLS, int(lengths.sum())).astype(np.int32), lengths, scored, np.full(trips, window),
        rng.integers(0, CELLS, int(counts.sum())).astype(np.int32), counts,
    )  # fmt: skip


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """Milliseconds by name; nothing for an empty list."""
    if not seconds:
        return {}
    found = np.percentile(seconds, [50, 99, 100]) * 1000
    return {name: round(float(value), 1) for name, value in zip(("p50", "p99", "max"), found, strict=True)}
