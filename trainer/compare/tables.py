"""A comparison on the terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from trainer.compare.comparison import Row
from trainer.compare.significance import LEVEL

WIDTH = 112  # of the terminal's table at least


def header(confidence: float) -> tuple[str, ...]:
    return ("figure", "arm", "baseline", f"difference [{confidence:.0%}]", "effect", "p", "p seeds", "trips")


def cells(row: Row) -> tuple[str, ...]:
    """For people: corrected p, `*` where significant; an arrow says which way is better; trips that differ of all."""
    arrow = "↑" if row.better == "higher" else "↓"
    interval = f" [{_number(row.low, True)}, {_number(row.high, True)}]" if row.low is not None else ""
    return (
        f"{row.figure} {arrow}",
        _number(row.mine),
        _number(row.theirs),
        f"{_number(row.difference, True)}{interval}",
        "-" if row.effect is None else f"{row.effect:+.2f}",
        _p(row.p_corrected),
        _p(row.p_seeds_corrected),
        "-" if row.n is None else f"{row.n}" if row.differing is None else f"{row.differing}/{row.n}",
    )


def _number(value: float | None, signed: bool = False) -> str:
    return "-" if value is None else f"{value:{'+' if signed else ''}.4f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return ("<0.001" if value < 0.001 else f"{value:.3f}") + ("*" if value < LEVEL else "")


def show(rows: Sequence[Row], confidence: float, lines: Sequence[str]) -> None:
    console = Console(width=max(Console().width, WIDTH), markup=False, emoji=False)  # names are only text
    for (mine, theirs), group in _by_arms(rows):
        table = Table(title=f"{mine} against {theirs}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for name in header(confidence):
            table.add_column(name, justify="left" if name == "figure" else "right", no_wrap=True)
        for _, level in groupby(group, key=lambda row: row.level):
            for row in level:
                table.add_row(*cells(row))
            table.add_section()
        console.print(table)
    for line in lines:
        console.print(f"- {line}", highlight=False)


def markdown(rows: Sequence[Row], confidence: float, lines: Sequence[str]) -> str:
    parts = []
    for (mine, theirs), group in _by_arms(rows):
        names = header(confidence)
        table = [names, ("---",) + ("---:",) * (len(names) - 1), *map(cells, group)]
        lines_of_table = "\n".join(f"| {' | '.join(each)} |" for each in table)
        parts.append(f"## {_only_text(mine)} against {_only_text(theirs)}\n\n{lines_of_table}")
    parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _only_text(name: str) -> str:
    """A name in Markdown, where its characters mean nothing else."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", name)


def comma_separated(rows: Sequence[Row]) -> str:
    """All fields of all rows in full."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _by_arms(rows: Sequence[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    return [(names, list(group)) for names, group in groupby(rows, key=lambda row: (row.arm, row.baseline))]


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
