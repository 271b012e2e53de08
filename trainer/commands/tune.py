"""`trainer tune`: looks for the best settings, then compares them with training without a teacher."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer.assemble import pick_device
from trainer.commands.data import Cache, SkipBad
from trainer.config_file import load_config, with_values
from trainer.data.prepare import prepare
from trainer.errors import BadInput, Stopped
from trainer.guide import teacher_address
from trainer.signals import StopFlag
from trainer.teacher.address import connect
from trainer.teacher.pool import Patience
from trainer.teacher.subject import default_labels
from trainer.trackers import check_trackers


def tune_command(
    data: Annotated[Path | None, typer.Option(help="Folder in HOSER format; before the config's data_dir.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of this study; the same command goes on with it.")] = Path(
        "runs/tune"
    ),
    config: Annotated[
        Path | None, typer.Option(help="YAML settings; the section optuna says what is searched and how.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="local:FOLDER, grpc://HOST:PORT[,...], triton://HOST:PORT[,...]/MODEL, labels, uniform or none."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. optuna.n_trials=30.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="TRAINER_TUNE_STORAGE",
            show_envvar=True,
            help="URL of a database that several workers share (default: study.db in --out, SQLite).",
        ),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name in that database (default: as --out).")] = None,
    cache: Cache = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Where the teacher's answers are kept, for all trials (default: beside the cache)."),
    ] = None,
    skip_bad: SkipBad = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the student.")] = None,
) -> None:
    """Tune lambda, temperature, window and any other key; then train the best settings and plain HOSER."""
    try:
        from trainer.tuning.report import show
        from trainer.tuning.storage import sqlite_url
        from trainer.tuning.study import conduct
        from trainer.tuning.workshop import Workshop
    except ModuleNotFoundError as error:
        raise BadInput(f"trainer tune needs {error.name}: pip install 'hoser-distill[tune]'") from None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadInput("trainer tune trains on one device; for several, start it several times with the same --out")
    settings = load_config(config, list(set_ or []))
    check_trackers(settings)
    where = pick_device(device)
    weight = {"distill.lambda": settings.optuna.search_space.lambda_min}  # so that 0 does not mean nobody
    address = teacher_address(teacher, with_values(settings, weight, "optuna.search_space"))
    source = data or Path(settings.data_dir or "")
    if source == Path():
        raise BadInput("no data: give --data FOLDER or set data_dir in the config")
    prepared = prepare(source, cache, skip_bad)
    distill, stop = settings.distill, StopFlag()
    patience = Patience(distill.deadline_s, distill.on_teacher_loss, distill.wait_limit_s)
    found = connect(address, patience, stopped=stop, digest=distill.teacher_digest)
    try:
        with stop:
            workshop = Workshop(
                out=_made(out),
                city=prepared.city,
                address=address,
                teacher=found,
                labels=labels or default_labels(prepared.folder),
                device=where,
                cpu_threads=cpu_threads,
                about={"data": str(source.resolve()), "skip_bad": skip_bad},
                should_stop=stop,
            )
            url = storage or sqlite_url(out / "study.db")
            summary = conduct(settings, workshop, url, study or (out.resolve().name if storage else "study"))
    except Stopped as error:
        print(f"trainer: {error}; the same command goes on", file=sys.stderr)
        raise typer.Exit(128 + (stop.signal or 0)) from None
    finally:
        if found:
            found.close()
    show(out, summary)


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{out}: cannot write a study here ({error.strerror}); name another --out") from None
    return out
