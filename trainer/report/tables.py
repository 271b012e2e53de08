"""The tables of a report: the main figures of each run, and what made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.report.charts import finite
from trainer.report.runs import Run

ABSENT = "–"


@dataclass(frozen=True)
class Figure:
    """A figure of evaluation.json."""

    key: str
    title: str
    unit: str
    higher: bool  # is better
    percent: bool = False

    def text(self, value: object) -> str:
        number = finite(value)
        if number is None:
            return ABSENT
        return f"{number:.1%}".replace("%", " %") if self.percent else f"{number:.3f}"


HEADLINE = (
    Figure("choice_accuracy", "Next road", "right, of choices", True, percent=True),
    Figure("destination_reached_rate", "Arrives", "of trips", True, percent=True),
    Figure("Distance_JSD", "Trip length", "JSD", False),
    Figure("TripDuration_JSD", "Trip duration", "JSD", False),
    Figure("RoadVisit_JSD", "Road usage", "JSD", False),
    Figure("Hausdorff_km", "Hausdorff", "km", False),
    Figure("DTW_km", "DTW", "km", False),
    Figure("EDR", "EDR", "share", False),
)


def headline(runs: list[Run]) -> list[dict[str, Any]]:
    """A row for each run: its number, name, teacher and the texts of the figures."""
    return [
        {
            "number": number,
            "name": run.name,
            "teacher": teacher_of(run),
            "cells": [figure.text(run.evaluation.get(figure.key)) for figure in HEADLINE],
        }
        for number, run in enumerate(runs)
    ]


def teacher_of(run: Run) -> str:
    """In a few words."""
    kind = str(run.origin.get("teacher"))
    words = {"none": "no teacher", "uniform": "uniform control", "imported": "imported"}
    return words.get(kind, f"teacher {kind[:8]}")


def provenance(runs: list[Run]) -> list[dict[str, Any]]:
    """Facts by row: a name, a text for each run, and whether they differ; rows that no run has are left out."""
    rows = []
    for name, tell in FACTS:
        texts = [_short(tell(run)) for run in runs]
        if set(texts) != {ABSENT}:
            rows.append({"name": name, "texts": texts, "differ": len(set(texts)) > 1, "code": name in CODES})
    return rows


def _short(value: object) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _setting(*keys: str) -> Callable[[Run], Any]:
    def tell(run: Run) -> Any:
        value: Any = run.origin.get("config", {})
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return tell


def _distilling(*keys: str) -> Callable[[Run], Any]:
    """A setting that means nothing without a teacher."""
    tell = _setting(*keys)
    return lambda run: None if run.origin.get("teacher") in ("none", "imported") else tell(run)


def _own(key: str) -> Callable[[Run], Any]:
    """A setting of a student that draws routes of its own."""
    mode, tell = _distilling("distill", "mode"), _distilling("distill", key)
    return lambda run: None if mode(run) in (None, "off-policy") else tell(run)


def _about_teacher(key: str) -> Callable[[Run], Any]:
    return lambda run: (run.origin.get("teacher_about") or {}).get(key)


def _search(run: Run) -> Any:
    if not run.made:
        return None
    width = f", width {run.made.get('beam_width')}" if run.made.get("search") == "beam" else ""
    if run.made.get("search") == "sample":
        width = f", temperature {run.made.get('temperature')}, seed {run.made.get('seed')}"
    return f"{run.made.get('search')}{width}, at most {run.made.get('max_expansions')} expansions"


CODES = ("model", "data", "teacher")
FACTS: tuple[tuple[str, Callable[[Run], Any]], ...] = (
    ("model", lambda run: run.digest and run.digest[:16]),
    ("data", lambda run: str(run.origin["data_fingerprint"])[:16]),
    ("teacher", lambda run: str(run.origin["teacher"])[:16]),
    ("teacher's grid", _about_teacher("grid")),
    ("teacher computes in", _about_teacher("compute_type")),
    ("weight of the KL (lambda)", _distilling("distill", "lambda")),
    ("temperature", _distilling("distill", "temperature")),
    ("whose trips the KL is on", _distilling("distill", "mode")),
    ("share of own routes", _own("own_share")),
    ("steps between two draws", _own("refresh_every")),
    ("window", _distilling("distill", "window")),
    ("seed", _setting("training", "seed")),
    ("epochs", _setting("optimizer_config", "max_epoch")),
    ("batch", _setting("optimizer_config", "batch_size")),
    ("learning rate", _setting("optimizer_config", "learning_rate")),
    ("angle feature", _setting("data", "angle")),
    ("optimiser steps", lambda run: run.summary.get("optimiser_steps")),
    ("best epoch, from 0", lambda run: run.summary.get("best_epoch")),
    ("processes", lambda run: run.origin.get("ranks")),
    ("seconds in training steps", lambda run: (run.summary.get("profile") or {}).get("step_seconds")),
    ("trips compared", lambda run: run.evaluation.get("generated_trips")),
    ("search", _search),
    ("expansions a trip, mean", lambda run: finite(run.made.get("expansions_mean"), 4)),
    ("seconds a trip, mean", lambda run: finite(run.made.get("total_time_mean"), 3)),
    ("hoser-distill", lambda run: run.origin.get("version")),
    ("commit", lambda run: run.origin.get("commit")),
    ("torch", lambda run: run.origin.get("torch")),
)
