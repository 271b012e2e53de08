"""Charts as plotly takes them. Colours are names of the page's style variables (`--ink`), so that a theme is one place.

A chart is {"traces": [...], "layout": {...}}; numbers that are not finite are gaps.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

Chart = dict[str, Any]
DASHES = ("solid", "dash", "dot", "dashdot")
COLOURS = 6


def label(name: str) -> str:
    """A name of a run for plotly, which reads tags in what it shows."""
    return html.escape(name, quote=False)


def look(number: int) -> dict[str, Any]:
    """Colour and dashes of the n-th run; all differ up to 24, and neighbours in both."""
    return {"color": f"--run-{number % COLOURS}", "dash": DASHES[number % len(DASHES)], "width": 2}


def line(name: str, number: int, x: Sequence[float], y: Sequence[float | None], **more: Any) -> dict[str, Any]:
    """One run's line."""
    drawn = {"type": "scatter", "mode": "lines", "line": look(number)} | more
    return {"name": label(name), "x": list(x), "y": [finite(value) for value in y]} | drawn


def chart(traces: list[dict[str, Any]], x: str, y: str, **axes: Any) -> Chart:
    """Titles of both axes, and what else is said of them (`xaxis`, `yaxis`)."""
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}
    for axis, settings in axes.items():
        layout[axis] = layout[axis] | settings
    return {"traces": traces, "layout": layout}


def finite(value: object, digits: int = 5) -> float | None:
    """A number to so many digits, or None."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
