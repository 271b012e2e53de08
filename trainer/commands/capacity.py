"""`trainer capacity`: how many teachers so many students need."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from trainer.capacity.model import Fleet, Service
from trainer.capacity.plan import Found, Training, attempt, enough, least
from trainer.errors import BadInput

MEASURED, WANTED = "What was measured", "What is wanted"
HEADER = ("teachers", "busy", "a batch", "answer p50", "p99", "students wait", "epoch", "teacher hours: asked", "kept")


def capacity_command(
    students: Annotated[int, typer.Option(min=1, max=100_000, help="That train at once.", rich_help_panel=WANTED)],
    step_ms: Annotated[float, typer.Option(min=0.01, help="Of a student without a teacher.", rich_help_panel=MEASURED)],
    question_ms: Annotated[
        float, typer.Option(min=0.001, help="That each question adds to a batch.", rich_help_panel=MEASURED)
    ],
    batch_ms: Annotated[
        float, typer.Option(min=0, help="Of a batch, whatever is in it.", rich_help_panel=MEASURED)
    ] = 0.0,
    around_ms: Annotated[
        float, typer.Option(min=0, help="Of a question outside the device.", rich_help_panel=MEASURED)
    ] = 0.0,
    spread: Annotated[
        float, typer.Option(min=0, max=2, help="Deviation of a batch's time / its mean.", rich_help_panel=MEASURED)
    ] = 0.1,
    most: Annotated[
        int, typer.Option(min=1, max=10_000, help="Questions that fit a batch.", rich_help_panel=MEASURED)
    ] = 8,
    ahead: Annotated[
        int, typer.Option(min=0, max=64, help="distill.prefetch: steps asked ahead.", rich_help_panel=WANTED)
    ] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Of an epoch.", rich_help_panel=WANTED)] = 132,
    epochs: Annotated[int, typer.Option(min=1, help="Of a training.", rich_help_panel=WANTED)] = 25,
    waiting: Annotated[
        float, typer.Option(min=0, max=1, help="Share of their time that students may wait.", rich_help_panel=WANTED)
    ] = 0.05,
    teachers: Annotated[
        list[int] | None,
        typer.Option(min=1, max=10_000, help="Try so many instead; repeat it.", rich_help_panel=WANTED),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Say how many teachers keep so many students busy, how long answers take, and what an epoch costs.

    A simulation of students and teachers with the times that you have measured: docs/capacity.md says how.
    """
    service = Service(batch_ms / 1000, question_ms / 1000, around_ms / 1000, spread, most)
    fleet, training = Fleet(students, 1, step_ms / 1000, ahead), Training(steps, epochs)
    console = Console(stderr=True)
    with console.status("simulating") as status:

        def tell(found: Found) -> None:
            status.update(f"{found.fleet.teachers} teachers: students wait {found.outcome.waited:.1%} of their time")

        tried = _asked(service, fleet, teachers) if teachers else _wanted(service, fleet, waiting, tell)
    if json_:
        print(json.dumps({"least_teachers": least(service, fleet), "fleets": [_row(each, training) for each in tried]}))
        return
    title = f"{students} students, {step_ms:g} ms a step, {ahead} steps asked ahead"
    _show(tried, training, f"{title}; fewer than {least(service, fleet)} teachers cannot keep up")


def _asked(service: Service, fleet: Fleet, teachers: list[int]) -> list[Found]:
    return [attempt(service, replace(fleet, teachers=count)) for count in teachers]


def _wanted(service: Service, fleet: Fleet, waiting: float, tell: Any) -> list[Found]:
    """What is enough, between half of it and twice as much."""
    found = enough(service, fleet, waiting, tell)
    if found is None:
        raise BadInput(
            f"no number of teachers is enough: an answer takes {service.around_s + service.of(1):.3g} s with a teacher "
            "that is idle, which students do not hide: ask further ahead (--ahead), or let them wait more (--waiting)"
        )
    half, twice = max(1, found.fleet.teachers // 2), found.fleet.teachers * 2
    around = [attempt(service, replace(fleet, teachers=count)) for count in (half, twice)]
    return sorted(
        {each.fleet.teachers: each for each in (*around, found)}.values(), key=lambda each: each.fleet.teachers
    )


def _row(found: Found, training: Training) -> dict[str, Any]:
    outcome = found.outcome
    return {
        "fleet": asdict(found.fleet),
        "steps_a_second": outcome.steps_a_second,
        "waited": outcome.waited,
        "busy": outcome.busy,
        "questions_a_batch": outcome.questions_a_batch,
        "answer_s": {f"p{percent}": outcome.answer_s(percent) for percent in (50, 95, 99)},
        "epoch_s": found.epoch_s(training),
        "teacher_hours": {"asked": found.teacher_hours(training, False), "kept": found.teacher_hours(training, True)},
    }


def _show(tried: list[Found], training: Training, title: str) -> None:
    table = Table(title=title, box=SIMPLE_HEAD)
    for name in HEADER:
        table.add_column(name, justify="right", no_wrap=True)
    for found in tried:
        outcome = found.outcome
        table.add_row(
            str(found.fleet.teachers),
            f"{outcome.busy:.0%}",
            f"{outcome.questions_a_batch:.1f}",
            f"{outcome.answer_s(50):.3g} s",
            f"{outcome.answer_s(99):.3g} s",
            f"{outcome.waited:.1%}",
            f"{found.epoch_s(training):.4g} s",
            f"{found.teacher_hours(training, False):.3g}",
            f"{found.teacher_hours(training, True):.3g}",
        )
    console = Console()
    Console(width=max(console.width, 110)).print(table)
