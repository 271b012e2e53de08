"""An evaluation for people (a table) and for programs (a JSON file)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from teacher_server.evaluate.judge import Evaluation
from teacher_server.files import write_text


def write_evaluation(result: Evaluation, path: Path) -> None:
    """All figures as JSON; the file appears whole. Raises BadSettings where it cannot be written."""
    write_text(path, json.dumps(asdict(result), indent=2) + "\n")


def print_evaluation(result: Evaluation) -> None:
    """Two lines of figures and a table of the outlier settings, to standard output."""
    console = Console(soft_wrap=True, highlight=False)
    cut = f" ({result.trips_cut} cut to the block size)" if result.trips_cut else ""
    console.print(f"teacher     {result.digest}")
    console.print(
        f"perplexity  test {result.perplexity:.3f} on {result.trips} trips{cut}, val {result.val_perplexity:.3f}"
    )
    console.print(
        f"threshold   {result.threshold:.3f} nats a token (normal trips: {result.normal_mean:.3f} "
        f"± {result.normal_std:.3f})"
    )
    table = Table(title=f"Outliers, {result.outlier_ratio:.0%} of the test trips")
    for name in ("kind", "level", "p", "outliers", "PR-AUC", "F1", "precision", "recall"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for row in result.detections:
        figures = (row.pr_auc, row.f1, row.precision, row.recall)
        counts = (str(row.level), str(row.share), str(row.outliers))
        table.add_row(row.kind, *counts, *(f"{figure:.3f}" for figure in figures))
    console.print(table)
