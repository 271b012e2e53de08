"""Which files of a run a bundle holds, and whether they belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config_file import load_config
from trainer.errors import BadInput
from trainer.files import digest_of, read_object
from trainer.run_folder import IMPORTED, RunFolder
from trainer.student.card import StudentCard, read_card

BEST = "checkpoints/best.safetensors"
NEEDED = (BEST, "config.yaml", "origin.json")
# What else a run may hold, and what writes it.
OPTIONAL = {
    "metrics.jsonl": "trainer train",
    "summary.json": "trainer train",
    "generated.csv": "trainer generate RUN",
    "generated.json": "trainer generate RUN",
    "evaluation.json": "trainer evaluate RUN",
    "evaluation.npz": "trainer evaluate RUN",
    "evaluation.fused.json": "trainer evaluate RUN --fuse-teacher",
    "evaluation.fused.npz": "trainer evaluate RUN --fuse-teacher",
    "report.html": "trainer report RUN",
}


@dataclass(frozen=True)
class Parts:
    """A run's files and what they say; all of them are of one student."""

    root: Path
    digests: dict[str, str]  # SHA-256 by name of file
    student: StudentCard
    weights: int
    origin: dict[str, Any]
    found: dict[str, dict[str, Any]]  # content of the JSON files that are there

    @property
    def model_digest(self) -> str:
        return self.digests[BEST]

    @property
    def missing(self) -> list[str]:
        """What one would look for in vain."""
        wanted = ("metrics.jsonl", "summary.json", "generated.csv", "evaluation.json", "report.html")
        return [name for name in wanted if name not in self.digests]


def gather(run: Path, unfinished: bool) -> Parts:
    """Reads and checks a run. Raises BadInput where it is no run, not finished, or of parts that do not fit."""
    folder = RunFolder(run)
    _check_run(run)
    origin = folder.saved()
    for name in NEEDED:
        if not (run / name).is_file():
            raise BadInput(f"{run / name}: no such file; a run without it cannot be bundled")
    digests = {name: digest_of(run / name) for name in (*NEEDED, *OPTIONAL) if (run / name).is_file()}
    if "summary.json" not in digests and origin["teacher"] != IMPORTED and not unfinished:
        raise BadInput(
            f"{run}: is not finished (no summary.json): `trainer train --out {run} --resume` goes on, "
            "--unfinished bundles it as it is"
        )
    student, weights = read_card(run / BEST)
    found = {name: read_object(run / name) for name in digests if name.endswith(".json")}
    parts = Parts(run, digests, student, weights, origin, found)
    _check_student(parts)
    for name in ("summary.json", "evaluation.json", "evaluation.fused.json", "generated.json"):
        _check_maker(parts, name)
    _check_trips(parts)
    return parts


def _check_run(run: Path) -> None:
    """Raises BadInput for a folder of runs, with their names: which one is meant is never guessed."""
    if (run / "origin.json").exists() or not run.is_dir():
        return
    runs = sorted(str(file.parent) for depth in ("*", "*/*", "*/*/*") for file in run.glob(f"{depth}/origin.json"))
    if runs:
        more = f" and {len(runs) - 10} more" if len(runs) > 10 else ""
        raise BadInput(f"{run}: holds several runs; name one of them: {', '.join(runs[:10])}{more}")


def _check_student(parts: Parts) -> None:
    """The weights' own description against the run's."""
    origin, student, file = parts.origin, parts.student, parts.root / BEST
    teacher = None if origin["teacher"] in ("none", "uniform", IMPORTED) else origin["teacher"]
    pairs = {
        "data": (student.data_fingerprint, origin["data_fingerprint"]),
        "teacher": (student.teacher_digest, teacher),
    }
    for what, (its, the_runs) in pairs.items():
        if its != the_runs:
            raise BadInput(f"{file}: was trained with {what} {_short(its)}, the run with {_short(the_runs)}")
    for where, settings in ((BEST, student.config), ("config.yaml", load_config(parts.root / "config.yaml").plain())):
        if key := _unlike(origin["config"], settings):
            raise BadInput(f"{parts.root / where}: {key} is not that of the run (origin.json)")


def _unlike(mine: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first key of `mine` for which `other` has another value."""
    for key, value in mine.items():
        its = other.get(key)
        if isinstance(value, Mapping) and isinstance(its, Mapping):
            if found := _unlike(value, its, f"{prefix}{key}."):
                return found
        elif value != its:
            return prefix + key
    return None


def _check_maker(parts: Parts, name: str) -> None:
    if name not in parts.found:
        return
    maker = parts.found[name].get("model_digest")
    if maker != parts.model_digest:
        raise BadInput(
            f"{parts.root / name}: is of another student ({_short(maker)}) than {BEST} ({_short(parts.model_digest)}); "
            f"run {OPTIONAL[name]} again"
        )


def _check_trips(parts: Parts) -> None:
    """Trips and the JSON that says what made them, the figures about them, and the report."""
    trips = parts.digests.get("generated.csv")
    if (trips is None) != ("generated.json" not in parts.digests):
        raise BadInput(f"{parts.root}: generated.csv and generated.json belong together; run trainer generate again")
    for name in ("evaluation.json", "evaluation.fused.json"):
        figures, beside = parts.found.get(name, {}), name.replace(".json", ".npz")
        if figures.get("generated_digest") not in (None, trips):
            raise BadInput(f"{parts.root / name}: is about other trips than generated.csv; run {OPTIONAL[name]} again")
        if figures.get("trips_digest") != parts.digests.get(beside):
            raise BadInput(f"{parts.root / beside}: is not what {name} was made with; run {OPTIONAL[name]} again")
    report = parts.root / "report.html"
    if "report.html" in parts.digests and parts.model_digest[:16] not in report.read_text(errors="replace"):
        raise BadInput(
            f"{report}: does not tell of this student ({_short(parts.model_digest)}); run trainer report again"
        )


def _short(digest: object) -> str:
    return str(digest)[:16]
