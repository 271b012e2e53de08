"""An evaluation on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = ("destination_reached_rate", "Distance_JSD", "Duration_JSD", "RoadVisit_JSD", "Hausdorff_km", "DTW_km", "EDR")
COUNTS = ("generated_trips", "real_trips", "compared_pairs")


def show_evaluation(title: str, figures: dict[str, Any]) -> None:
    """All single figures, and the scenarios where there are any."""
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if isinstance(value, int | float) or (value is None and name != "commit"):
            table.add_row(name, as_text(value))
    for kind, count in (figures.get("dropped_trips") or {}).items():
        table.add_row(f"dropped: {kind}", str(count))
    console = Console()
    console.print(table)
    if "scenarios" in figures:
        console.print(_scenarios(figures["scenarios"]))


def _scenarios(scenarios: dict[str, dict[str, dict[str, Any]]]) -> Table:
    table = Table("scenario", title="by scenario")
    for name in (*COUNTS, *SHOWN):
        table.add_column(name.replace("_trips", "").replace("compared_", ""), justify="right")
    for kind, rows in scenarios.items():
        table.add_section()
        for name, row in rows.items():
            figures = [row["empty"]] if "empty" in row else [as_text(row[figure]) for figure in SHOWN]
            table.add_row(f"{kind}: {name}", *(str(row[count]) for count in COUNTS), *figures)
    return table


def as_text(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
