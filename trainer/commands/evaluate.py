"""`trainer evaluate`: a student's next-step figures and its generated trips against real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from trainer.assemble import load_trained, pick_device
from trainer.clock import Clock
from trainer.commands.data import Cache, SkipBad
from trainer.commands.load import run_data
from trainer.config import Config
from trainer.data.batches import in_order
from trainer.data.city import City
from trainer.data.features import Network
from trainer.errors import BadInput
from trainer.evaluate.judge import evaluate_trips
from trainer.evaluate.pairs import Cell
from trainer.examples import ExampleMaker
from trainer.generate.output import read_generated
from trainer.guide import find_guide
from trainer.run_folder import RunFolder, write_json
from trainer.step import Objective, Sums, measure
from trainer.student.checkpoint import StudentCard
from trainer.student.hoser import HOSER
from trainer.teacher.address import NONE, UNIFORM
from trainer.teacher.targets import Targets

NEXT_STEP = ("next_step_accuracy", "choice_accuracy", "mape_log1p", "mape_seconds", "loss_next_step")


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
    teacher: Annotated[str | None, typer.Option(help="local:FOLDER or grpc://HOST:PORT, for --fuse-teacher.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write (default: evaluation.json in the run).")] = None,
    cache: Cache = None,
    skip_bad: SkipBad = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the student.")] = None,
) -> None:
    """Measure a student on real trips, and its generated trips against them."""
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    if split not in ("train", "val", "test"):
        raise BadInput(f"--split must be train, val or test, not {split!r}")
    folder, cell = RunFolder(run), Cell.parse(od_cell)
    city = run_data(folder, data, cache, skip_bad).city
    trips_file = generated or folder.generated
    figures = _next_step(folder, city, split, fuse_teacher, teacher, device)
    if generated or trips_file.exists():
        found = read_generated(trips_file, city.road_map.roads)
        figures |= evaluate_trips(
            found.trips,
            city.trips[split],
            np.asarray(city.road_map.centres),
            requested_destinations=found.destinations,
            cell=cell,
        )
    write_json(out or folder.root / "evaluation.json", figures)
    _show(run, figures)


def _next_step(
    folder: RunFolder, city: City, split: str, fuse: float | None, address: str | None, device: str
) -> dict[str, Any]:
    student, config, card = load_trained(folder.best, city)
    where = pick_device(device)
    about = {"split": split, "data_fingerprint": city.meta.fingerprint, "teacher_digest": card.teacher_digest}
    if fuse is None:
        return about | _figures(student.to(where), config, card, city, split, None, 0.0)
    if address in (None, NONE, UNIFORM):
        raise BadInput("--fuse-teacher needs --teacher local:FOLDER or grpc://HOST:PORT")
    guide = find_guide(address, config, city)
    try:
        fused = {"fuse_teacher": fuse, "fused_with": guide.digest}
        return about | fused | _figures(student.to(where), config, card, city, split, guide.targets, fuse)
    finally:
        guide.close()


def _figures(
    student: HOSER, config: Config, card: StudentCard, city: City, split: str, targets: Targets | None, fuse: float
) -> dict[str, Any]:
    where = student.road2zone.device
    steps = config.trajectory_encoder_config.max_len
    maker = ExampleMaker(Network.of(city.road_map).to(where), where, steps, config.data.angle, Clock())
    objective = Objective(0.0, config.distill.temperature, card.log1p_mean, card.log1p_std)
    student.eval()
    total, trips = Sums(), city.trips[split]
    for chosen in in_order(len(trips), 4 * config.optimizer_config.batch_size):
        total.add(measure(student, maker.make(trips, chosen, targets=targets), objective, fuse))
    means = total.means(objective)
    return {name: means[name] for name in NEXT_STEP} | {"steps": total.steps, "choice_steps": total.choices}


def _show(run: Path, figures: dict[str, Any]) -> None:
    table = Table(title=str(run))
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, int):
            table.add_row(name, str(value))
    Console().print(table)
