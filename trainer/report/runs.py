"""What a report is made of: the files of each run, as far as they are there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.roadmap import Floats, RoadMap, csv_rows
from trainer.data.trips import Ints
from trainer.errors import BadInput
from trainer.evaluate.shape import check_figures
from trainer.files import digest_of, read_object
from trainer.generate.reading import Generated, about, check_made_by, read_generated
from trainer.run_folder import RunFolder

MOST_RUNS = 12  # what the colours and tables of a page can tell apart


@dataclass(frozen=True)
class Routes:
    """n generated trips and what the search knew of each; NaN and -1 where the file does not say."""

    generated: Generated
    origins: Ints  # [n] requested
    sources: Ints  # [n] trip of the split that each was drawn from, or -1
    reached: Ints  # [n] 1, 0 or -1
    expansions: Floats  # [n]
    log_prob: Floats  # [n]


@dataclass(frozen=True)
class Run:
    """One run; what it does not have is empty, and `missing` says what would bring it."""

    name: str
    folder: RunFolder
    digest: str | None  # of its best student
    origin: dict[str, Any]
    summary: dict[str, Any]
    evaluation: dict[str, Any]
    made: dict[str, Any]  # what the JSON beside the generated trips says
    metrics: list[dict[str, Any]]
    routes: Routes | None
    missing: tuple[str, ...]

    @property
    def dropped(self) -> str:
        """Bad generated trips, count x kind; empty where there are none."""
        kinds = self.routes.generated.dropped if self.routes else {}
        return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def names_of(runs: list[Path]) -> list[str]:
    """The folders' names, with as many parents as it takes to tell them apart. Raises BadInput."""
    if not runs:
        raise BadInput("name one run or more: trainer report RUN...")
    paths = [run.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise BadInput("a run is named twice; name each once")
    if len(runs) > MOST_RUNS:
        raise BadInput(f"a report shows at most {MOST_RUNS} runs, not {len(runs)}")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different names")


def check_alike(folders: list[RunFolder]) -> None:
    """Raises BadInput for what is no run, and for runs of different cities."""
    first, *others = [folder.origin().data_fingerprint for folder in folders]
    for folder, fingerprint in zip(folders[1:], others, strict=True):
        if fingerprint != first:
            raise BadInput(
                f"{folder.root}: was trained on other data ({fingerprint[:16]}) than {folders[0].root} "
                f"({first[:16]}); a report is of one city"
            )


def read_run(folder: RunFolder, name: str, road_map: RoadMap, skip_bad: bool = False) -> Run:
    """Raises BadInput or BadLine for a file that is there but broken."""
    digest = digest_of(folder.best) if folder.best.exists() else None
    saved, summary, evaluation = folder.saved(), read_object(folder.summary), read_object(folder.evaluation)
    check_figures(folder.evaluation, evaluation)
    made, routes = {}, None
    if folder.generated.exists():
        check_made_by(folder.generated, str(digest), saved["data_fingerprint"])
        made, routes = about(folder.generated), read_routes(folder.generated, road_map, skip_bad)
    stale = evaluation and _is_stale(folder, evaluation, digest)
    lacking = {
        "Not trained to its end: `trainer train --resume` goes on.": not summary,
        "No generated trips yet: run `trainer generate` on it.": routes is None,
        "Not evaluated yet: run `trainer evaluate` on it.": not evaluation,
        "Trained or generated anew since it was evaluated: run `trainer evaluate` on it again.": stale,
    }
    missing = tuple(text for text, lacks in lacking.items() if lacks)
    evaluation = {} if stale else evaluation
    metrics = _metrics(folder.metrics)
    return Run(name, folder, digest, saved, summary, evaluation, made, metrics, routes, missing)


def _is_stale(folder: RunFolder, evaluation: dict[str, Any], digest: str | None) -> bool:
    """Whether figures are of another student, or of other trips, than those that are there now."""
    trips = digest_of(folder.generated) if folder.generated.exists() else None
    return evaluation.get("model_digest", digest) != digest or evaluation.get("generated_digest") != trips


def _metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics log; a half-written last one is left out. Raises BadInput."""
    lines = file.read_text().splitlines() if file.exists() else []
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            if number < len(lines):
                raise BadInput(f"{file}:{number}: not a JSON object") from None
    return found


def read_routes(file: Path, road_map: RoadMap, skip_bad: bool) -> Routes:
    """Generated trips with what their columns tell of the search. Raises BadInput or BadLine."""
    generated = read_generated(file, road_map, skip_bad)
    by_line = dict(csv_rows(file, ("origin_road_id",), lambda kind, line, value: None))
    rows = [by_line[line] for line in generated.lines.tolist()]
    return Routes(
        generated,
        _numbers(rows, "origin_road_id", -1).astype(np.int64),
        _numbers(rows, "source_index", -1).astype(np.int64),
        np.array([{"true": 1, "false": 0}.get(row.get("reached", "").lower(), -1) for row in rows]),
        _numbers(rows, "expansions", np.nan),
        _numbers(rows, "log_prob", np.nan),
    )


def _numbers(rows: list[dict[str, str]], column: str, unknown: float) -> Floats:
    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return unknown

    return np.array([number(row.get(column, "")) for row in rows])
