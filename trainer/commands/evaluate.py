"""`trainer evaluate`: a student's next-step figures and its generated trips against real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from trainer.commands.data import Cache
from trainer.commands.load import run_data
from trainer.data.city import City
from trainer.errors import BadInput
from trainer.evaluate.cells import Cell
from trainer.evaluate.next_step import next_step_figures
from trainer.evaluate.stored import Arrays, write_evaluation
from trainer.evaluate.tables import show_evaluation
from trainer.files import check_target, digest_of
from trainer.generate.reading import check_made_by, read_generated
from trainer.provenance import program
from trainer.run_folder import RunFolder


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    data: Annotated[Path | None, typer.Option(help="Data folder (default: the one the run was trained on).")] = None,
    generated: Annotated[
        Path | None, typer.Option(help="CSV of generated trips (default: generated.csv in the run, if there).")
    ] = None,
    split: Annotated[str, typer.Option(help="Real trips to compare with: train, val or test.")] = "test",
    od_cell: Annotated[
        str, typer.Option(help="Size of origin and destination cells: 0.001 (degrees) or 200m.")
    ] = "0.001",
    fuse_teacher: Annotated[
        float | None,
        typer.Option(help="Add this much of the teacher's log-probabilities to the student (needs --teacher)."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="local:FOLDER, grpc://... or triton://..., for --fuse-teacher.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON to write (default: evaluation[.fused].json in the run)."),
    ] = None,
    cache: Cache = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Drop and count bad trips, of the generated file and of --data.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the student.")] = None,
) -> None:
    """Measure a student on real trips, and its generated trips against them."""
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    if split not in ("train", "val", "test"):
        raise BadInput(f"--split must be train, val or test, not {split!r}")
    if fuse_teacher is not None and not 0 <= fuse_teacher < float("inf"):
        raise BadInput(f"--fuse-teacher must be a finite number, zero or more, not {fuse_teacher}")
    folder, cell = RunFolder(run), Cell.parse(od_cell)
    target = out or (folder.evaluation if fuse_teacher is None else folder.root / "evaluation.fused.json")
    if out:
        check_target(out)
    # The run's own data is read as it was trained on; other data may need the flag.
    city = run_data(folder, data, cache, skip_bad and data is not None).city
    figures: dict[str, Any] = {"model_digest": digest_of(folder.best)} if folder.best.exists() else {}
    figures |= program() | next_step_figures(folder, city, split, fuse_teacher, teacher, device)
    trips: Arrays = {}
    if generated or folder.generated.exists():
        found, trips = _judged(generated or folder.generated, folder, city, split, cell, skip_bad)
        figures |= found
    write_evaluation(target, figures, trips)
    show_evaluation(str(run), figures)


def _judged(file: Path, folder: RunFolder, city: City, split: str, cell: Cell, skip_bad: bool) -> tuple[Any, Arrays]:
    """Refuses trips of another student or other data, whose names would stand above the figures."""
    from trainer.evaluate.generated import judge_generated  # takes a third of a second that others need not spend

    check_made_by(file, digest_of(folder.best), city.meta.fingerprint)
    return judge_generated(file, read_generated(file, city.road_map, skip_bad), city, split, cell)
