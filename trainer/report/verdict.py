"""What served teachers make of real and generated trips, and how well they tell outliers, from `evaluation.json`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.report.charts import finite
from trainer.report.runs import Run
from trainer.report.tables import ABSENT, Figure

# Of a set of trips; the figure's name ends with the set's.
FIGURES = (
    Figure("teacher_perplexity", "Perplexity", "of tokens", False),
    Figure("anomaly_score_mean", "Anomaly score", "mean, nats a token", False),
    Figure("anomaly_rate", "Anomalies", "of trips", False, percent=True),
)
COUNTS = ("judged_trips", "cut_trips")
OUTLIER = re.compile(r"outlier_(pr_auc|f1)_(\w+)_(\d+)_([\d.e-]+)")


@dataclass(frozen=True)
class Judged:
    """A set of trips."""

    number: int | None  # of the run; None: real trips
    name: str
    cells: list[str]


@dataclass(frozen=True)
class Verdict:
    """Of one teacher."""

    digest: str
    compute_type: str
    threshold: str
    sets: list[Judged]
    outliers: list[tuple[str, ...]]  # kind, level, share, PR-AUC, F1
    unjudged: list[str]  # runs


def verdicts(runs: list[Run], split: str) -> list[Verdict]:
    """One for each teacher that judged a run."""
    by_judge: dict[tuple[str, str], list[tuple[int, Run]]] = {}
    for number, run in enumerate(runs):
        if run.evaluation.get("judge_digest"):
            judge = str(run.evaluation["judge_digest"]), str(run.evaluation.get("judge_compute_type"))
            by_judge.setdefault(judge, []).append((number, run))
    return [_verdict(judge, members, runs, split) for judge, members in by_judge.items()]


def _verdict(judge: tuple[str, str], members: Sequence[tuple[int, Run]], runs: list[Run], split: str) -> Verdict:
    first = members[0][1].evaluation
    sets = [Judged(None, "real, val", _cells(first, "val")), Judged(None, f"real, {split}", _cells(first, "real"))]
    sets += [Judged(number, run.name, _cells(run.evaluation, "generated")) for number, run in members]
    names = {run.name for _, run in members}
    return Verdict(
        judge[0][:16],
        judge[1],
        Figure("anomaly_threshold", "", "", False).text(first.get("anomaly_threshold")),
        sets,
        next((found for _, run in members if (found := outliers(run.evaluation))), []),
        [run.name for run in runs if run.name not in names],
    )


def _cells(evaluation: dict[str, Any], trips: str) -> list[str]:
    counts = [evaluation.get(f"{name}_{trips}") for name in COUNTS]
    return [
        *(figure.text(evaluation.get(f"{figure.key}_{trips}")) for figure in FIGURES),
        *(ABSENT if finite(count) is None else f"{count:,}" for count in counts),
    ]


def outliers(evaluation: dict[str, Any]) -> list[tuple[str, ...]]:
    """The benchmark's rows: kind, cells, share, PR-AUC, F1."""
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for name, value in evaluation.items():
        if match := OUTLIER.fullmatch(name):
            figure, kind, level, share = match.groups()
            found.setdefault((kind.replace("_", " "), level, share), {})[figure] = Figure("", "", "", True).text(value)
    return [(*setting, each.get("pr_auc", ABSENT), each.get("f1", ABSENT)) for setting, each in found.items()]
