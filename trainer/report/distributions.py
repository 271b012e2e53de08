"""What trips measure, real against generated: the quantities and bins of the divergences in `trainer.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.data.roadmap import Floats
from trainer.evaluate.distributions import BINS, Measures, divergence, histogram
from trainer.report.charts import Chart, chart, finite, line
from trainer.report.runs import Run

TOGETHER = 3  # bins of the metric to a bar: a line that the eye can follow
PERCENTILE = 99.5  # of the real values, where bars end: the tail would press all else to the left


@dataclass(frozen=True)
class Quantity:
    """A field of Measures that has a divergence."""

    field: str
    title: str
    unit: str
    of: str


QUANTITIES = (
    Quantity("distance_km", "Trip length", "km", "trips"),
    Quantity("minutes", "Trip duration", "min", "trips"),
    Quantity("step_minutes", "Time on a road", "min", "steps"),
    Quantity("radius_km", "Trip radius", "km", "trips"),
)


@dataclass(frozen=True)
class Distribution:
    """One quantity of all sets."""

    quantity: Quantity
    chart: Chart
    real_median: float
    rows: list[tuple[str, float, float | None]]  # run, median, divergence


def distributions(real: Measures, generated: list[tuple[int, Run, Measures]]) -> list[Distribution]:
    """Every quantity; `generated` has each run's number, which its colour goes by."""
    return [_distribution(quantity, real, generated) for quantity in QUANTITIES]


def _distribution(quantity: Quantity, real: Measures, generated: list[tuple[int, Run, Measures]]) -> Distribution:
    truth = _values(real, quantity.field)
    end = float(np.percentile(truth, PERCENTILE)) if len(truth) else 0.0
    end = end if end > 0 else 1.0
    x, y = shares(truth, end)
    traces = [
        line(
            "real",
            0,
            x,
            y,
            line={"color": "--ink", "width": 1, "shape": "hvh"},
            fill="tozeroy",
            fillcolor="--real-fill",
        )
    ]
    rows = []
    for number, run, measures in generated:
        values = _values(measures, quantity.field)
        x, y = shares(values, end)
        drawn = line(run.name, number, x, y)
        drawn["line"]["shape"] = "hvh"
        traces.append(drawn)
        rows.append((run.name, _median(values), divergence(measures, real, quantity.field)))
    axis = {"range": [0, end]}
    drawn_chart = chart(traces, quantity.unit, f"share of {quantity.of}", xaxis=axis, yaxis={"tickformat": ".1~%"})
    return Distribution(quantity, drawn_chart, _median(truth), rows)


def shares(values: Floats, end: float) -> tuple[list[float], list[float | None]]:
    """Middles of the bars up to `end`, and each bar's share of all values; what is above has no bar."""
    counts = histogram(np.asarray(values, np.float64), end)[:BINS].reshape(-1, TOGETHER).sum(axis=1)
    width = end * TOGETHER / BINS
    middles = [finite((bar + 0.5) * width) or 0.0 for bar in range(len(counts))]
    return middles, [finite(count / max(len(values), 1)) for count in counts]


def _values(measures: Measures, field: str) -> Floats:
    """One for each trip or step."""
    found: Floats = getattr(measures, field)
    return np.repeat(found, measures.step_counts) if field == "step_minutes" else found


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else float("nan")
