"""`python -m bench`: how much faster the product's ways are than plain ones, as ratios within one run."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from bench.attention import measure_attention
from bench.compare import Comparison
from bench.teacher import measure_calls, measure_packing


def main(
    out: Annotated[Path | None, typer.Option(help="JSON file for all timings.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each way.")] = 9,
) -> None:
    """Measure ratios against plain references on one CPU thread."""
    torch.set_num_threads(1)
    found = [measure_calls(runs), measure_packing(7, runs), measure_packing(0, runs), measure_attention(runs)]
    if out:
        about = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
        out.write_text(json.dumps(about | {"comparisons": [each.to_json() for each in found]}, indent=1) + "\n")
    Console().print(table_of(found))


def table_of(found: Sequence[Comparison]) -> Table:
    table = Table(title="median items a second, and how many times faster (median, least to greatest)")
    for name in ("what", "plain", "ours", "ratio", "spread"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for each in found:
        ratios = each.ratios
        table.add_row(
            each.name,
            f"{each.rate(each.plain_s):,.0f}",
            f"{each.rate(each.ours_s):,.0f} {each.unit}/s",
            f"{statistics.median(ratios):.1f}x",
            f"{min(ratios):.1f} to {max(ratios):.1f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
