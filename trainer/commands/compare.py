"""`trainer compare`: whether arms of trained students differ by more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.compare import tables
from trainer.compare.result import Settings, compare_runs
from trainer.compare.runs import DATA, VERSION
from trainer.errors import BadInput
from trainer.files import check_target, write_text

FORMATS = (".json", ".md", ".csv")
DIFFERENT = (DATA, VERSION)
CORRECTIONS = ("holm", "bh")


def compare_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Evaluated runs; those that differ by their seed only are an arm.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=RUN,RUN", help="An arm of your own; may be given several times."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Arm that others are held against (default: the first).")] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help=f"File to write, {', '.join(FORMATS)}; may be given several times.")
    ] = None,
    allow_different: Annotated[
        str, typer.Option(help="What may differ between runs all the same: data, version or data,version.")
    ] = "",
    draws: Annotated[int, typer.Option(min=100, max=100_000, help="Of the bootstrap.")] = Settings.draws,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = Settings.confidence,
    correction: Annotated[
        str, typer.Option(help=f"For the number of tests: {' or '.join(CORRECTIONS)}.")
    ] = Settings.correction,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap's draws.")] = Settings.seed,
) -> None:
    """Compare arms of trained students on the same requests: intervals, tests, effect sizes."""
    if correction not in CORRECTIONS:
        raise BadInput(f"--correction must be {' or '.join(CORRECTIONS)}, not {correction!r}")
    for file in out or []:
        if file.suffix not in FORMATS:
            raise BadInput(f"--out {file}: must end in {', '.join(FORMATS)}")
        check_target(file)
    settings = Settings(baseline, _allowed(allow_different), draws, confidence, correction, seed)
    result = compare_runs(runs or [], arm or [], settings)
    for file in out or []:
        write_text(file, result.text(file.suffix))
    tables.show(result.rows, confidence, result.lines)


def _allowed(text: str) -> frozenset[str]:
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    if unknown := words - set(DIFFERENT):
        raise BadInput(f"--allow-different {min(unknown)}: must be {' or '.join(DIFFERENT)}")
    return words
