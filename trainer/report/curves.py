"""How training went: losses, accuracy, KL and waiting, from `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.report.charts import Chart, chart, finite, line
from trainer.report.runs import Run

MOST_POINTS = 400  # of a line; neighbours are averaged until no more are left


@dataclass(frozen=True)
class Curve:
    """A figure of `metrics.jsonl`."""

    key: str
    title: str
    unit: str
    note: str
    percent: bool = False


CURVES = (
    Curve("loss_next_step", "Loss of the next road", "cross-entropy", "training; lower is better"),
    Curve("val/choice_accuracy", "Accuracy where there is a choice", "share", "validation; higher is better", True),
    Curve("loss_kl", "KL to the teacher", "nats a step", "training; lower is closer to the teacher"),
    Curve("perf/teacher_wait_share", "Waiting for the teacher", "share of a step", "0 where answers are there", True),
)


def curves(runs: list[Run]) -> list[tuple[Curve, Chart]]:
    """Those that any run has."""
    found = []
    for curve in CURVES:
        traces = []
        for number, run in enumerate(runs):
            steps, values = series(run, curve.key)
            if len(steps):
                mode = {"mode": "lines+markers"} if len(steps) < 30 else {}
                traces.append(line(run.name, number, steps, values, **mode))
        if traces:
            axis = {"tickformat": ".1~%"} if curve.percent else {}
            if curve.key.startswith("val/"):
                axis["rangemode"] = "normal"
            found.append((curve, chart(traces, "optimiser step", curve.unit, yaxis=axis)))
    return found


def series(run: Run, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one figure, thinned; a plain run's KL is no figure."""
    if key in ("loss_kl", "perf/teacher_wait_share") and run.origin.get("teacher") == "none":
        return [], []
    pairs = [(row.get("step"), finite(row.get(key))) for row in run.metrics]
    known = [(float(step), value) for step, value in pairs if isinstance(step, int) and value is not None]
    return thin([step for step, _ in known]), thin([value for _, value in known])


def thin(values: Sequence[float]) -> list[float]:
    """Means of neighbours, so many that at most MOST_POINTS are left."""
    together = -(-len(values) // MOST_POINTS) or 1
    starts = np.arange(0, len(values), together)
    sums = np.add.reduceat(np.asarray(values, float), starts) if len(values) else np.zeros(0)
    return [float(v) for v in sums / np.diff(np.append(starts, len(values)))]
