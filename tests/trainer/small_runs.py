"""Small finished runs with all that a run can have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.trainer.datasets import small_city, trainer


def do(*words: str | Path) -> None:
    outcome = trainer(*words)
    assert outcome.status == 0, outcome.err


def small_run(
    root: Path,
    name: str,
    *settings: str,
    teacher: str = "uniform",
    search: str = "best-first",
    judge: Sequence[str | Path] = (),
) -> Path:
    """Trained for two epochs on the city of `root`, with generated trips, evaluated (`judge`: flags more for that)."""
    data, cache, run = root / "city", root / "cache", root / "runs" / name
    if not data.exists():
        small_city(data)
    sets = [
        word
        for setting in ("optimizer_config.max_epoch=2", "profiling.log_interval=1", *settings)
        for word in ("--set", setting)
    ]
    do("train", "--data", data, "--cache", cache, "--out", run, "--teacher", teacher, *sets)
    do("generate", run, "--cache", cache, "--count", "20", "--search", search, "--max-expansions", "200")
    do("evaluate", run, "--cache", cache, *judge)
    return run


def report(root: Path, runs: Sequence[Path], name: str = "report.html") -> Path:
    """Written beside the runs."""
    do("report", *runs, "--cache", root / "cache", "--out", root / name)
    return root / name
