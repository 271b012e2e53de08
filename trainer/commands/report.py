"""`trainer report`: one HTML file that people can look at, keep and print."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from trainer.commands.data import Cache
from trainer.commands.load import run_data
from trainer.errors import BadInput
from trainer.files import check_target, write_text
from trainer.report.build import build_report
from trainer.report.runs import check_alike, names_of, read_run
from trainer.run_folder import RunFolder


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs of one city, 12 at most.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write (of one run: report.html in it, unless named).")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder (default: the first run's).")] = None,
    cache: Cache = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Drop and count bad generated trips.")] = False,
) -> None:
    """Write one self-contained HTML file: main figures, map, single trips, distributions, learning, settings."""
    start = time.monotonic()
    names = names_of(runs)
    folders = [RunFolder(run) for run in runs]
    check_alike(folders)
    if out is None and len(runs) > 1:
        raise BadInput("a report of several runs needs a place: --out FILE.html")
    target = out or folders[0].report
    check_target(target)
    # Trips are read as the runs were trained on them, or it is other data; the flag is about the generated ones.
    city = run_data(folders[0], data, cache, False).city
    if city.meta.fingerprint != folders[0].origin().data_fingerprint:
        raise BadInput(
            f"{data or folders[0].saved()['data']}: is not the data that {runs[0]} was trained on "
            f"({city.meta.fingerprint[:16]}, not {folders[0].origin().data_fingerprint[:16]})"
        )
    found = [read_run(folder, name, city.road_map, skip_bad) for folder, name in zip(folders, names, strict=True)]
    if not any(run.routes for run in found):
        raise BadInput(f"{runs[0]}: has no generated trips to report on; run `trainer generate {runs[0]}`")
    write_text(target, build_report(found, city))
    size = target.stat().st_size / 1e6
    print(f"{target}: {len(found)} run{'s' * (len(found) > 1)}, {size:.1f} MB, {time.monotonic() - start:.1f} s")
