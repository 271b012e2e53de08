"""`trainer label`: ask a teacher about whole splits once, so that training never has to."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.commands.engine import Engine, EngineOption, cluster_of
from trainer.config_file import load_config
from trainer.data.city import SPLITS
from trainer.data.prepare import prepare
from trainer.errors import BadInput
from trainer.guide import token_map
from trainer.teacher.address import NOBODY, check_address, connect
from trainer.teacher.label import Filling, unanswered_steps
from trainer.teacher.pool import Patience
from trainer.teacher.protocol import Teacher
from trainer.teacher.questions import Cells
from trainer.teacher.subject import Subject, default_labels

if TYPE_CHECKING:
    from trainer.cluster import Cluster


def label_command(
    data: Annotated[Path | None, typer.Option(help="Folder in HOSER format; before the config's data_dir.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="local:FOLDER, grpc://HOST:PORT[,HOST:PORT] or triton://HOST:PORT/MODEL.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, val or test; repeat it for several (train).")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML settings of the training; window and max_len count.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. distill.window=4.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Where labels are kept (default: beside the cache).")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where prepared data is kept.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Drop and count bad trips instead of stopping.")] = False,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Requests at a time.  [default: 2 for each endpoint]")
    ] = None,
    engine: EngineOption = Engine.PLAIN,
) -> None:
    """Keep the teacher's answers for all steps of a split; may be stopped at any time and goes on where it was."""
    settings = load_config(config, list(set_ or []))
    splits = split or ["train"]
    if unknown := [name for name in splits if name not in SPLITS]:
        raise BadInput(f"--split must be train, val or test, not {unknown[0]!r}")
    source = data or Path(settings.data_dir or "")
    if source == Path():
        raise BadInput("no data: give --data FOLDER or set data_dir in the config")
    address = teacher or settings.distill.teacher
    if address is None:
        raise BadInput("no teacher: give --teacher local:FOLDER, grpc://HOST:PORT or triton://HOST:PORT/MODEL")
    if address in NOBODY:
        raise BadInput(f"--teacher {address}: gives no labels to keep; name a served teacher")
    check_address(address)
    distill = settings.distill
    on_loss = "wait" if distill.on_teacher_loss == "skip-kl" else distill.on_teacher_loss  # no label is left out
    patience = Patience(distill.deadline_s, on_loss, distill.wait_limit_s)
    with cluster_of(engine) as cluster:
        prepared = prepare(source, cache, skip_bad, cluster.map if cluster else map)
        with _asked(cluster, address, patience, distill.teacher_digest) as (found, at_once):
            tokens = token_map(found.description, settings, prepared.city).road_to_token
            for name in dict.fromkeys(splits):
                subject = Subject(
                    prepared.city, name, settings.trajectory_encoder_config.max_len, distill.history, found.description
                )
                root = labels or default_labels(prepared.folder)
                print(_fill(subject, Cells(tokens, prepared.city.road_map), root, found, in_flight or at_once))


@contextmanager
def _asked(
    cluster: Cluster | None, address: str, patience: Patience, digest: str | None
) -> Iterator[tuple[Teacher, int]]:
    """The teacher, and how many requests it is worth to ask at a time."""
    if cluster is None:
        pool = connect(address, patience, digest=digest)
        assert pool is not None, "somebody answers there"
        with closing(pool):
            yield pool, pool.in_flight
    else:
        with closing(cluster.teacher(address, patience, digest)) as askers:
            yield askers, askers.count


def _fill(subject: Subject, cells: Cells, root: Path, teacher: Teacher, in_flight: int) -> str:
    """Fills the store of a split; returns a sentence about it."""
    steps = subject.steps()
    store = subject.open_store(root)
    before, started = store.share, time.monotonic()
    try:
        Filling(subject, store, steps, cells, teacher, in_flight).run()
    except BaseException:
        print("trainer: labelling stopped; what was answered is kept, and the same command goes on", file=sys.stderr)
        raise
    return (
        f"{subject.split}: {len(steps.offsets) - 1} trips, {len(steps.roads)} steps, {int(steps.degrees.sum())} values "
        f"({before:.1%} were there, {time.monotonic() - started:.1f} s), {unanswered_steps(store, steps)} steps "
        f"without a finite answer; in {store.folder}"
    )
