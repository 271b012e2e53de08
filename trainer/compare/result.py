"""From paths to a finished comparison, and the files that hold it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.compare import tables
from trainer.compare.arms import Arm, check_arms, described, group, parse_arm
from trainer.compare.bootstrap import Draws
from trainer.compare.comparison import Method, Row, compare
from trainer.compare.figures import RunFigures
from trainer.compare.notes import notes
from trainer.compare.runs import Run, check_comparable, common_trips, load_run
from trainer.errors import BadInput
from trainer.files import digest_of
from trainer.provenance import program


@dataclass(frozen=True)
class Settings:
    """What the user chose."""

    baseline: str | None = None  # name of an arm; the first one without it
    allowed: frozenset[str] = frozenset()  # differences that do not matter
    draws: int = 1000
    confidence: float = 0.95
    correction: str = "holm"
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """A finished comparison."""

    settings: Settings
    arms: list[Arm]
    baseline: Arm
    requests: int
    rows: list[Row]
    lines: list[str]  # how arms were made, what differs, what the numbers cannot tell

    def text(self, suffix: str) -> str:
        """As the kind of file that a suffix names."""
        if suffix == ".csv":
            return tables.comma_separated(self.rows)
        if suffix == ".md":
            return tables.markdown(self.rows, self.settings.confidence, self.lines)
        return json.dumps(self.plain(), indent=1, allow_nan=False) + "\n"

    def plain(self) -> dict[str, Any]:
        settings = self.settings
        return {
            **program(),
            "draws": settings.draws,
            "seed": settings.seed,
            "confidence": settings.confidence,
            "correction": settings.correction,
            "allowed_different": sorted(settings.allowed),
            "baseline": self.baseline.name,
            "requests": self.requests,
            "arms": {arm.name: {"given": arm.given, "runs": [_about(run) for run in arm.runs]} for arm in self.arms},
            "rows": tables.plain(self.rows),
            "notes": self.lines,
        }


def _about(run: Run) -> dict[str, Any]:
    told = run.evaluation.figures
    return {
        "run": str(run.folder),
        "seed": run.seed,
        "program": run.program,
        "evaluation_digest": digest_of(run.evaluation.file),
        **{name: told.get(name) for name in ("model_digest", "data_fingerprint", "teacher_digest")},
    }


def compare_runs(paths: Sequence[Path], named: Sequence[str], settings: Settings) -> Result:
    """Groups, checks and compares evaluated runs; `named`: arms as NAME=RUN,RUN,... Raises BadInput."""
    given = [(name, [load_run(path) for path in members]) for name, members in map(parse_arm, named)]
    arms = [*group([load_run(path) for path in paths]), *(Arm(name, tuple(runs), True) for name, runs in given)]
    return compare_arms(arms, settings)


def compare_arms(arms: list[Arm], settings: Settings) -> Result:
    """Checks and compares arms of evaluated runs. Raises BadInput."""
    check_arms(arms)
    baseline = _baseline(arms, settings.baseline)
    runs = [run for arm in arms for run in arm.runs]
    differing = check_comparable(runs, settings.allowed)
    chosen = common_trips(runs) or [np.zeros(0, np.int64)] * len(runs)
    figures = {str(run.folder): RunFigures(run, trips) for run, trips in zip(runs, chosen, strict=True)}
    method = Method(Draws(len(chosen[0]), settings.draws, settings.seed), settings.confidence, settings.correction)
    rows = compare(arms, baseline, figures, method)
    lines = [*described(arms), *differing, *_of_requests(runs, len(chosen[0])), *notes(rows, arms, method)]
    return Result(settings, arms, baseline, len(chosen[0]), rows, lines)


def _baseline(arms: Sequence[Arm], name: str | None) -> Arm:
    found = [arm for arm in arms if name in (None, arm.name)]
    if not found:
        raise BadInput(f"--baseline {name}: no such arm; there are {', '.join(arm.name for arm in arms)}")
    return found[0]


def _of_requests(runs: Sequence[Run], common: int) -> list[str]:
    if not common:
        return ["no generated trips were evaluated, so only next-step figures are compared"]
    most = max(len(run.evaluation.trips["line"]) for run in runs)
    dropped = sum(sum((run.evaluation.figures.get("dropped_trips") or {}).values()) for run in runs)
    return [f"{common} of {most} requests are compared: {dropped} bad trips were dropped"] if dropped else []
