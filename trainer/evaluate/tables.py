"""An evaluation on the terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

UNSAID = ("commit", "teacher_digest")  # no figures
WIDTH = 90  # of the terminal's tables at least
COUNTS = {"trips": "generated_trips", "real": "real_trips", "pairs": "compared_pairs"}
DIVERGENCES = {"dist.": "Distance_JSD", "step": "Duration_JSD", "roads": "RoadVisit_JSD"}
SHOWN = {"reached": "destination_reached_rate", **DIVERGENCES, "Hausd": "Hausdorff_km", "DTW": "DTW_km", "EDR": "EDR"}


def show_evaluation(title: str, figures: dict[str, Any]) -> None:
    """All single figures, and the scenarios where there are any."""
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if isinstance(value, int | float) or (value is None and name not in UNSAID):
            table.add_row(name, as_text(value))
    for kind, count in (figures.get("dropped_trips") or {}).items():
        table.add_row(f"dropped: {kind}", str(count))
    console = Console(width=max(Console().width, WIDTH), markup=False, emoji=False)  # names are only text
    console.print(table)
    if "scenarios" in figures:
        console.print(_scenarios(figures["scenarios"]))
        for line in _empty(figures["scenarios"]):
            console.print(line, highlight=False)


def _scenarios(scenarios: dict[str, dict[str, dict[str, Any]]]) -> Table:
    caption = f"{', '.join(DIVERGENCES)}: divergences of distance, step time, road visits; Hausd, DTW: km"
    table = Table(title="by scenario", caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("scenario", no_wrap=True, min_width=max(len(name) for rows in scenarios.values() for name in rows))
    for name in (*COUNTS, *SHOWN):
        table.add_column(name, justify="right", no_wrap=True)
    for rows in scenarios.values():
        for name, row in rows.items():
            figures = [as_text(row[figure], 3) for figure in SHOWN.values()]
            table.add_row(name, *(str(row[count]) for count in COUNTS.values()), *figures)
        table.add_section()
    return table


def _empty(scenarios: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Scenarios without figures, and why."""
    found = [(name, row["empty"]) for rows in scenarios.values() for name, row in rows.items() if "empty" in row]
    return [f"{name}: empty, {why}" for name, why in found]


def as_text(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"
