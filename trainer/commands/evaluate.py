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
from trainer.evaluate.at_wandb import AtWandb
from trainer.evaluate.cells import Cell
from trainer.evaluate.generated import judge_generated
from trainer.evaluate.next_step import next_step_figures
from trainer.evaluate.stored import Arrays, check_target, write_evaluation
from trainer.evaluate.tables import show_evaluation
from trainer.evaluate.teacher_judge import judge_by_teacher
from trainer.files import digest_of
from trainer.generate.reading import Generated, check_made_by, read_generated
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
        str | None,
        typer.Option(help="local:FOLDER, grpc://... or triton://...: judges the trips, or is added by --fuse-teacher."),
    ] = None,
    teacher_evaluation: Annotated[
        Path | None,
        typer.Option(help="What `teacher evaluate --out` wrote of that teacher and this data: shown beside."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON to write (default: evaluation[.fused].json in the run)."),
    ] = None,
    wandb: Annotated[
        bool | None,
        typer.Option("--wandb/--no-wandb", help="Send the figures to W&B (default: as the run's settings say)."),
    ] = None,
    wandb_artifact: Annotated[
        bool, typer.Option("--wandb-artifact", help="Send the files to W&B, too, as an artifact.")
    ] = False,
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
    if teacher_evaluation and (teacher is None or fuse_teacher is not None):
        raise BadInput("--teacher-evaluation goes with --teacher, and without --fuse-teacher")
    folder, cell = RunFolder(run), Cell.parse(od_cell)
    target = out or (folder.evaluation if fuse_teacher is None else folder.root / "evaluation.fused.json")
    file = generated or (folder.generated if folder.generated.exists() else None)
    folder.origin()  # a folder that is no run is refused first
    check_target(target, _kept(folder, generated, teacher_evaluation))
    # The run's own data is read as it was trained on; other data may need the flag.
    prepared = run_data(folder, data, cache, skip_bad and data is not None)
    city = prepared.city
    at_wandb = AtWandb.asked_for(folder, wandb, wandb_artifact)
    figures: dict[str, Any] = {"model_digest": digest_of(folder.best)} if folder.best.exists() else {}
    figures |= program() | next_step_figures(folder, city, split, fuse_teacher, teacher, device)
    found, trips = _read(file, folder, city, skip_bad) if file else None, Arrays()
    if file and found:
        more, trips = judge_generated(file, found, city, split, cell)
        figures |= more
    if teacher and fuse_teacher is None:
        generated_trips = found.trips if found else None
        its_own = figures["teacher_digest"]
        more, scores = judge_by_teacher(teacher, prepared, split, generated_trips, teacher_evaluation, its_own)
        figures |= more
        trips |= scores if found else {}
    write_evaluation(target, figures, trips)
    show_evaluation(str(run), figures)
    if at_wandb:
        at_wandb.log(figures, target, file)


def _kept(folder: RunFolder, generated: Path | None, teacher_evaluation: Path | None) -> list[Path]:
    """What an evaluation reads, and JSON that others read, which it must not replace."""
    trips = [folder.generated, *([generated] if generated else [])]
    more = [folder.summary, folder.root / "origin.json", *([teacher_evaluation] if teacher_evaluation else [])]
    return [*trips, *(file.with_suffix(".json") for file in trips), *more]


def _read(file: Path, folder: RunFolder, city: City, skip_bad: bool) -> Generated:
    """Refuses trips of another student or other data, whose names would stand above the figures."""
    check_made_by(file, digest_of(folder.best), city.meta.fingerprint)
    return read_generated(file, city.road_map, skip_bad)
