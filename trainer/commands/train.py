"""`trainer train`: a student from data, with or without a teacher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from trainer.assemble import build_student, pick_device
from trainer.clock import Clock
from trainer.compiled import compile_student
from trainer.config import Config, without_effect
from trainer.config_file import load_config
from trainer.data.city import City
from trainer.data.features import Network
from trainer.data.prepare import Prepared, prepare
from trainer.errors import BadInput, Stopped, TrainerError
from trainer.examples import ExampleMaker
from trainer.files import write_json
from trainer.guide import Guide, find_guide, teacher_address
from trainer.learner import Learner
from trainer.own_routes import find_own
from trainer.precision import precision_for
from trainer.profile import profile_table
from trainer.provenance import program
from trainer.ranks import Ranks, joined
from trainer.run_folder import Origin, RunFolder
from trainer.schedule import make_optimizer
from trainer.signals import StopFlag
from trainer.step import Objective
from trainer.student.card import StudentCard
from trainer.summary import summarise
from trainer.teacher.address import LABELS
from trainer.teacher.subject import default_labels
from trainer.trackers import check_trackers, open_trackers
from trainer.tracking import Trackers
from trainer.train import Trainer, set_numerics

RANK_PATIENCE_S = 3600.0  # a rank may be silent while it prepares data, and beyond while it waits for a teacher


def make_trainer(
    config: Config, city: City, folder: RunFolder, guide: Guide, device: torch.device, ranks: Ranks
) -> Trainer:
    """Puts a run together; fresh weights come from the seed."""
    meta, clock, distill, network = city.meta, Clock.of(device), config.distill, Network.of(city.road_map).to(device)
    plain = config.plain()
    student = build_student(config, city).to(device)
    if (obstacle := compile_student(student, config.training)) and ranks.first:
        print(f"trainer: note: {obstacle}", file=sys.stderr)
    objective = Objective(
        kl_weight=distill.lambda_ * (distill.temperature**2 if distill.tau_squared else 1.0),
        temperature=distill.temperature,
        log1p_mean=meta.log1p_mean,
        log1p_std=meta.log1p_std,
        max_norm=config.optimizer_config.max_norm,
    )
    return Trainer(
        config=config,
        city=city,
        folder=folder,
        maker=ExampleMaker(
            network,
            device,
            config.trajectory_encoder_config.max_len,
            config.data.angle,
            clock,
            distill.shared_cells,
        ),
        learner=Learner(
            student,
            make_optimizer(student, config.optimizer_config),
            objective,
            clock,
            ranks,
            precision_for(config.training.amp, device),
        ),
        targets=guide.targets_of("train"),
        card=lambda step: StudentCard(plain, meta.fingerprint, guide.digest, meta.log1p_mean, meta.log1p_std, step),
        trackers=Trackers(),
        own=find_own(config, city, guide.targets, student, network, ranks),
    )


def train_command(
    data: Annotated[Path | None, typer.Option(help="Folder in HOSER format; before the config's data_dir.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of this run.")] = Path("runs/train"),
    config: Annotated[Path | None, typer.Option(help="YAML settings; without it the defaults hold.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="local:FOLDER, grpc://HOST:PORT[,...], triton://HOST:PORT[,...]/MODEL, labels (kept ones), "
            "uniform (a control) or none."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. distill.lambda=0.01.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set training.seed=N.")] = None,
    max_bad_steps: Annotated[
        int | None, typer.Option(min=0, help="Short for --set training.max_bad_steps=N: steps that may be left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, as it was begun.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Where prepared data is kept.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Where the teacher's answers are kept for later runs (default: beside the cache)."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Drop and count bad trips instead of stopping.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the student.")] = None,
) -> None:
    """Train a student; the run folder holds its settings, metrics, checkpoints and summary."""
    folder = RunFolder(out)
    saved = folder.saved() if resume else {}
    short = {"seed": seed, "max_bad_steps": max_bad_steps}
    overrides = list(set_ or []) + [f"training.{key}={value}" for key, value in short.items() if value is not None]
    settings = load_config(config or (folder.config if resume else None), overrides)
    source = data or Path(settings.data_dir or saved.get("data", ""))
    cache, labels = cache or _place(saved, "cache"), labels or _place(saved, "labels")
    if source == Path():
        raise BadInput("no data: give --data FOLDER or set data_dir in the config")
    address = teacher_address(teacher or saved.get("teacher_address"), settings)
    skip_bad = skip_bad or bool(saved.get("skip_bad"))
    about = {
        "data": str(source.resolve()),
        "skip_bad": skip_bad,
        "teacher_address": address,
        "cache": str(cache.resolve()) if cache else None,
        "labels": str(labels.resolve()) if labels else None,
    }
    where = pick_device(device)
    with joined(where, RANK_PATIENCE_S + settings.distill.wait_limit_s + settings.distill.deadline_s) as ranks:
        if ranks.first:
            _check_start(settings, folder, resume)
        prepared = prepare_together(ranks, source, cache, skip_bad)
        city, root = prepared.city, labels or default_labels(prepared.folder)
        set_numerics(settings, cpu_threads)
        kept = root if settings.distill.keep_labels or address == LABELS else None
        guide = find_guide(address, settings, city, kept, saved.get("teacher"))
        try:
            _run(make_trainer(settings, city, folder, guide, where, ranks), guide, about, resume)
        finally:
            guide.close()


def _place(saved: dict[str, Any], name: str) -> Path | None:
    """Where a run that goes on had its cache or its labels; None: where they usually are."""
    return Path(saved[name]) if saved.get(name) else None


def _check_start(settings: Config, folder: RunFolder, resume: bool) -> None:
    check_trackers(settings)
    if resume:
        return
    folder.check_new()
    if ignored := without_effect(settings):
        print(f"trainer: note: these settings have no effect here: {', '.join(ignored)}", file=sys.stderr)


def prepare_together(ranks: Ranks, source: Path, cache: Path | None, skip_bad: bool) -> Prepared:
    """The first rank prepares what is not in the cache yet, the others read it there."""
    if ranks.first:
        prepared = prepare(source, cache, skip_bad)
    ranks.wait()
    return prepared if ranks.first else prepare(source, cache, skip_bad)


def _run(trainer: Trainer, guide: Guide, about: dict[str, Any], resume: bool) -> None:
    folder, ranks = trainer.folder, trainer.learner.ranks
    with StopFlag() as stop:
        trainer.should_stop = stop
        summary = _test(trainer, guide) if carry_out(trainer, guide, about, resume) else None
    if summary is None:
        if ranks.first:
            print(f"trainer: stopped at step {trainer.progress.step} and saved; --resume continues", file=sys.stderr)
        raise typer.Exit(128 + (stop.signal or 0))
    if ranks.first:
        write_json(folder.summary, summary)
        _show(folder, summary)


def _test(trainer: Trainer, guide: Guide) -> dict[str, Any] | None:
    """What the trained run amounts to; None when a stop was asked for. Raises what keeps any rank from going on."""
    try:
        trainer.learner.ranks.wait()  # for the best student's file
        return summarise(trainer, guide)
    except Stopped:
        return None
    except TrainerError as error:
        error.args = (f"{error}; the run is trained, --resume tests it",)
        raise


def carry_out(trainer: Trainer, guide: Guide, about: dict[str, Any], resume: bool) -> bool:
    """Begins or resumes a run, and trains to its end; False when a stop was asked for. Raises what training raises."""
    _begin(trainer, guide, about, resume)
    if trainer.learner.ranks.first:
        trainer.trackers = open_trackers(trainer.config, trainer.folder, trainer.progress)
    try:
        return trainer.run()
    finally:
        trainer.trackers.close()


def _begin(trainer: Trainer, guide: Guide, about: dict[str, Any], resume: bool) -> None:
    """A new run folder, or the checkpoint of a run that was made from the same. Raises BadInput."""
    folder, ranks = trainer.folder, trainer.learner.ranks
    origin = Origin(lasting(trainer.config), trainer.city.meta.fingerprint, guide.name, ranks.world)
    if resume:
        if difference := folder.origin().difference(origin):
            raise BadInput(f"{folder.root}: cannot resume, {difference}")
        trainer.resume()
    elif ranks.first:
        versions = program() | {"torch": torch.__version__}
        folder.create(origin, _kept(trainer.config), about | versions | {"teacher_about": guide.about})
    ranks.wait()


def _show(folder: RunFolder, summary: dict[str, Any]) -> None:
    print(
        f"{folder.root}: test accuracy {summary['next_step_accuracy']:.4f}, at choices "
        f"{summary['choice_accuracy'] or 0:.4f}, time MAPE {summary['mape_log1p']:.4f} (log1p s)"
        + (f", KL {summary['kl']:.4f}" if summary["kl"] is not None else "")
    )
    Console().print(profile_table(summary["profile"]))


def _kept(config: Config) -> dict[str, Any]:
    """The settings that a resumed run starts from; where its data lies is known apart."""
    return {name: value for name, value in config.plain().items() if name != "data_dir"}


def lasting(config: Config) -> dict[str, Any]:
    """The settings that make a run what it is; how the teacher is reached and who keeps the figures may change."""
    plain = _kept(config)
    for name in ("wandb", "tensorboard", "optuna"):
        plain.pop(name)
    for name in ("teacher", "deadline_s", "on_teacher_loss", "wait_limit_s"):
        plain["distill"].pop(name)
    if not config.distill.own_part:  # else it decides which of the student's routes a step has
        plain["distill"].pop("prefetch")
    for name in ("max_bad_steps", "checkpoint_every_s"):
        plain["training"].pop(name)
    return plain
