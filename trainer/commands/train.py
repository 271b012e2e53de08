"""`trainer train`: a student from data, with or without a teacher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from trainer import __version__
from trainer.assemble import build_student, load_trained, pick_device
from trainer.clock import Clock
from trainer.config import Config, without_effect
from trainer.config_file import load_config
from trainer.data.batches import truncated
from trainer.data.features import Network
from trainer.data.prepare import Prepared, prepare
from trainer.errors import BadInput
from trainer.examples import ExampleMaker
from trainer.files import digest_of, write_json
from trainer.guide import Guide, find_guide, teacher_address
from trainer.run_folder import Origin, RunFolder
from trainer.signals import StopFlag
from trainer.step import Objective
from trainer.student.checkpoint import StudentCard
from trainer.train import Trainer, set_numerics


def make_trainer(config: Config, prepared: Prepared, folder: RunFolder, guide: Guide, device: str) -> Trainer:
    """Puts a run together; fresh weights come from the seed."""
    city, meta = prepared.city, prepared.city.meta
    where, clock = pick_device(device), Clock()
    plain = config.plain()
    distill = config.distill
    return Trainer(
        config=config,
        city=city,
        folder=folder,
        student=build_student(config, city).to(where),
        maker=ExampleMaker(
            Network.of(city.road_map).to(where),
            where,
            config.trajectory_encoder_config.max_len,
            config.data.angle,
            clock,
        ),
        objective=Objective(
            kl_weight=distill.lambda_ * (distill.temperature**2 if distill.tau_squared else 1.0),
            temperature=distill.temperature,
            log1p_mean=meta.log1p_mean,
            log1p_std=meta.log1p_std,
            max_norm=config.optimizer_config.max_norm,
        ),
        targets=guide.targets,
        card=lambda step: StudentCard(plain, meta.fingerprint, guide.digest, meta.log1p_mean, meta.log1p_std, step),
        clock=clock,
    )


def summarise(trainer: Trainer, guide: Guide) -> dict[str, Any]:
    """The best student on the test trips, and what it cost."""
    best, _, _ = load_trained(trainer.folder.best, trainer.city)
    trainer.student.load_state_dict(best.state_dict())
    with trainer.clock("test"):
        sums = trainer.measure(trainer.city.trips["test"], guide.targets)
    means = sums.means(trainer.objective)
    figures = ("next_step_accuracy", "choice_accuracy", "mape_log1p", "mape_seconds", "loss_next_step")
    limit = trainer.config.trajectory_encoder_config.max_len
    return {
        **{name: means[name] for name in figures},
        "kl": means["loss_kl"],
        "steps_scored": sums.kl_steps,
        "steps_skipped": sums.kl_skipped,
        "tied_share": sums.tied / sums.kl_steps if guide.teacher and sums.kl_steps else None,
        "truncated_histories": sums.truncated,
        "truncated_trips": {split: truncated(trips, limit) for split, trips in trainer.city.trips.items()},
        "test_steps": sums.steps,
        "choice_steps": sums.choices,
        "best_epoch": trainer.progress.best_epoch,
        "optimiser_steps": trainer.progress.step,
        "model_digest": digest_of(trainer.folder.best),
        "data_fingerprint": trainer.city.meta.fingerprint,
        "teacher": guide.about,
        "seconds": {part: round(s, 3) for part, s in trainer.clock.seconds.items()},
        "torch": torch.__version__,
        "version": __version__,
    }


def train_command(
    data: Annotated[Path | None, typer.Option(help="Folder in HOSER format; before the config's data_dir.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of this run.")] = Path("runs/train"),
    config: Annotated[Path | None, typer.Option(help="YAML settings; without it the defaults hold.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="local:FOLDER, grpc://HOST:PORT[,HOST:PORT], triton://HOST:PORT/MODEL, uniform (a control) or none."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. distill.lambda=0.01.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set training.seed=N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, as it was begun.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Where prepared data is kept.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Drop and count bad trips instead of stopping.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the student.")] = None,
) -> None:
    """Train a student; the run folder holds its settings, metrics, checkpoints and summary."""
    folder = RunFolder(out)
    saved = folder.saved() if resume else {}
    overrides = list(set_ or []) + ([f"training.seed={seed}"] if seed is not None else [])
    settings = load_config(config or (folder.config if resume else None), overrides)
    source = data or Path(settings.data_dir or saved.get("data", ""))
    if source == Path():
        raise BadInput("no data: give --data FOLDER or set data_dir in the config")
    if not resume:
        folder.check_new()
    if ignored := without_effect(settings):
        print(f"trainer: note: these settings have no effect here: {', '.join(ignored)}", file=sys.stderr)
    address = teacher_address(teacher or saved.get("teacher_address"), settings)
    skip_bad = skip_bad or bool(saved.get("skip_bad"))
    prepared = prepare(source, cache, skip_bad)
    set_numerics(settings, cpu_threads)
    guide = find_guide(address, settings, prepared.city)
    try:
        about = {"data": str(source.resolve()), "skip_bad": skip_bad, "teacher_address": address}
        _run(make_trainer(settings, prepared, folder, guide, device), guide, about, resume)
    finally:
        guide.close()


def _run(trainer: Trainer, guide: Guide, about: dict[str, Any], resume: bool) -> None:
    folder = trainer.folder
    origin = Origin(_lasting(trainer.config), trainer.city.meta.fingerprint, guide.name)
    if not resume:
        versions = {"version": __version__, "torch": torch.__version__}
        folder.create(origin, about | versions | {"teacher_about": guide.about})
    elif difference := folder.origin().difference(origin):
        raise BadInput(f"{folder.root}: cannot resume, {difference}")
    else:
        trainer.resume()
    with StopFlag() as stop:
        trainer.should_stop = stop
        finished = trainer.run()
    if not finished:
        print(f"trainer: stopped at step {trainer.progress.step} and saved; --resume continues", file=sys.stderr)
        raise typer.Exit(128 + (stop.signal or 0))
    summary = summarise(trainer, guide)
    write_json(folder.summary, summary)
    print(
        f"{folder.root}: test accuracy {summary['next_step_accuracy']:.4f}, at choices "
        f"{summary['choice_accuracy'] or 0:.4f}, time MAPE {summary['mape_log1p']:.4f} (log1p s)"
        + (f", KL {summary['kl']:.4f}" if summary["kl"] is not None else "")
    )


def _lasting(config: Config) -> dict[str, Any]:
    """The settings that make a run what it is: where data lies and how the teacher is reached may change."""
    plain = config.plain()
    plain.pop("data_dir")
    for name in ("teacher", "deadline_s"):
        plain["distill"].pop(name)
    return plain
