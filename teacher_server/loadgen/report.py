"""What a load measured, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def progress_line(seconds: float, duration: float, summary: Mapping[str, Any]) -> str:
    """One line while it runs. `seconds` is below 0 in the warm-up."""
    if seconds < 0:
        return f"warming up: {-seconds:.0f} s"
    latency = summary["latency_ms"]
    times = f", p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms" if latency else ""
    errors = sum(error["count"] for error in summary["errors"])
    return (
        f"{min(seconds, duration):.0f} of {duration:.0f} s: {summary['requests_per_s']:,.0f} requests/s, "
        f"{summary['positions_per_s']:,.0f} positions/s{times}" + (f", {errors:,} errors" if errors else "")
    )


def report(summary: Mapping[str, Any]) -> RenderableType:
    """Rates, percentiles, and errors by status."""
    rates = Text.assemble(
        (f"{summary['requests_per_s']:,.1f}", "bold"),
        " requests/s, ",
        (f"{summary['positions_per_s']:,.0f}", "bold"),
        f" positions/s over {summary['seconds']:.1f} s",
    )
    return Group(rates, _times(summary), *_errors(summary))


def _times(summary: Mapping[str, Any]) -> Table:
    table = Table("ms", box=None, header_style="dim", pad_edge=False)
    rows = {"latency": "latency_ms", "waiting there": "queue_ms", "computing there": "compute_ms"}
    for column in summary["latency_ms"] or ():
        table.add_column(column, justify="right")
    for title, name in rows.items():
        if summary[name]:
            table.add_row(title, *(f"{value:,.2f}" for value in summary[name].values()))
    return table


def _errors(summary: Mapping[str, Any]) -> list[Text]:
    everything = summary["requests"] + sum(error["count"] for error in summary["errors"])
    return [
        Text(f"{error['count']:,} {error['status']} ({error['count'] / everything:.1%}): {error['first']}", style="red")
        for error in summary["errors"]
    ]
