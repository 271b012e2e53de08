"""Evaluated runs, checked to be comparable: of the same data and program, and about the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import BadInput
from trainer.evaluate.shape import check_compared
from trainer.evaluate.stored import Evaluation, read_evaluation
from trainer.files import digest_of
from trainer.run_folder import RunFolder

REQUEST = ("origin", "destination", "start")
DATA, VERSION = "data", "version"  # what may differ where the user allows it


@dataclass(frozen=True)
class Run:
    """One trained student and what was found of it."""

    folder: Path
    origin: dict[str, Any]  # as the run folder has it
    evaluation: Evaluation

    @property
    def seed(self) -> int:
        return int(self.origin["config"]["training"]["seed"])

    @property
    def settings(self) -> dict[str, Any]:
        """All that makes the run what it is, but for its seed and its data."""
        config = {name: dict(section) for name, section in self.origin["config"].items() if isinstance(section, dict)}
        config["training"].pop("seed", None)
        how = {"teacher": self.origin["teacher"], "ranks": self.origin["ranks"]}
        return _flat(config) | how | _flat({"generated": self.evaluation.figures.get("generated_with") or {}})

    @property
    def digest(self) -> str | None:
        """The student's."""
        return self.evaluation.figures.get("model_digest")

    @property
    def program(self) -> str:
        """Version and commit of the training and, where it is another one, of the evaluation."""
        trained, evaluated = (_program(of) for of in (self.origin, self.evaluation.figures))
        return trained if trained == evaluated else f"trained by {trained}, evaluated by {evaluated}"


def _program(of: dict[str, Any]) -> str:
    version, commit = of.get("version") or "unknown version", of.get("commit")
    return f"{version} ({commit[:12]}{'-dirty' * commit.endswith('-dirty')})" if commit else str(version)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def load_run(path: Path) -> Run:
    """A run and its evaluation.json. Raises BadInput where one is missing, or is about another student or trips."""
    folder = RunFolder(path)
    origin, evaluation = folder.saved(), read_evaluation(folder.evaluation)
    told = evaluation.figures
    if evaluation.trips:
        check_compared(evaluation.file, told, evaluation.trips)
    parts = ((folder.best, "model_digest", "another student"), (folder.generated, "generated_digest", "other trips"))
    for file, name, what in parts:
        if name in told and file.exists() and digest_of(file) != told[name]:
            raise BadInput(f"{evaluation.file}: is about {what} than {file} now; run trainer evaluate {path} again")
    return Run(path, origin, evaluation)


def check_comparable(runs: Sequence[Run], allowed: frozenset[str]) -> list[str]:
    """What differs although it should not, in words; only what is allowed to. Raises BadInput."""
    differing = []
    for what, of in (
        (DATA, lambda run: str(run.evaluation.figures.get("data_fingerprint"))[:16]),
        (VERSION, lambda run: run.program),
    ):
        kinds = {of(run): run for run in reversed(runs)}
        if len(kinds) > 1:
            each = "; ".join(f"{run.folder}: {kind}" for kind, run in reversed(kinds.items()))
            if what not in allowed:
                raise BadInput(f"runs differ in {what} ({each}); evaluate them alike or give --allow-different {what}")
            differing.append(f"{what} differs: {each}")
    for name in ("split", "od_cell", "judge_digest", "judge_compute_type"):
        kinds = {str(run.evaluation.figures.get(name)): run for run in runs if name in run.evaluation.figures}
        if len(kinds) > 1:
            each = "; ".join(f"{run.folder}: {kind}" for kind, run in kinds.items())
            raise BadInput(f"runs were evaluated with another {name} ({each}); run trainer evaluate again")
    if any("-dirty" in run.program or "(" not in run.program for run in runs):
        differing.append(f"{VERSION} is not known for sure: some runs are of changed files, or of no checkout")
    return differing


def common_trips(runs: Sequence[Run]) -> list[NDArray[np.int64]]:
    """For each run which of its trips, in the same order, answer the requests that all runs have.

    Empty where no run has generated trips. Raises BadInput where only some have, or requests are not the same; a
    request whose trip was dropped as bad may be missing.
    """
    without = [run for run in runs if not run.evaluation.trips]
    if len(without) == len(runs):
        return []
    if without:
        raise BadInput(f"{without[0].folder}: has no evaluated trips, others have; run trainer generate and evaluate")
    lines = runs[0].evaluation.trips["line"]
    for run in runs[1:]:
        lines = np.intersect1d(lines, run.evaluation.trips["line"])
    chosen = [np.flatnonzero(np.isin(run.evaluation.trips["line"], lines)) for run in runs]
    for run, mine in zip(runs, chosen, strict=True):
        dropped = sum((run.evaluation.figures.get("dropped_trips") or {}).values())
        same = all(
            np.array_equal(run.evaluation.trips[name][mine], runs[0].evaluation.trips[name][chosen[0]])
            for name in REQUEST
        )
        others = max(len(other.evaluation.trips["line"]) for other in runs)
        if not same or len(run.evaluation.trips["line"]) + dropped < others or not len(lines):
            raise BadInput(
                f"{run.folder}: its trips were asked for other origins, destinations or start times than those of "
                f"{runs[0].folder}; generate both from the same --od-file, or with the same --od, --count and --seed"
            )
    return chosen
