"""The whole line on one machine: data, teacher, served teacher, three students, routes, figures, one table.

Every stage is a command that a user could type; the demo prints it and runs it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from trainer.errors import BadInput, TrainingFailed
from trainer.files import write_json

MARKER = "demo.json"
STUDENTS = ("none", "uniform", "distilled")
ON_POLICY = "on-policy"  # if asked for: distilled on routes that the student draws itself
SUMMARY = ("next_step_accuracy", "choice_accuracy", "mape_log1p", "mape_seconds", "kl", "steps_scored", "steps_skipped")
TRIPS = (
    "destination_reached_rate",
    "Distance_JSD",
    "Duration_JSD",
    "Radius_JSD",
    "TripDuration_JSD",
    "RoadVisit_JSD",
    "Hausdorff_km",
    "DTW_km",
    "EDR",
    "teacher_perplexity_generated",
    "anomaly_rate_generated",
)


@dataclass(frozen=True)
class Effort:
    """How much of everything; small enough for two CPU cores."""

    teacher_epochs: int
    epochs: int
    count: int
    max_expansions: int = 1000


def run(program: str, *arguments: str | Path) -> None:
    """One command, shown and run. Raises TrainingFailed when it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ {program} {' '.join(words)}", flush=True)
    module = {"teacher": "teacher_server", "trainer": "trainer"}[program]
    status = subprocess.run([sys.executable, "-m", module, *words], check=False).returncode
    if status:
        raise TrainingFailed(f"`{program} {words[0]}` ended with status {status}")


@contextmanager
def served(artifact: Path) -> Iterator[str]:
    """A teacher on a free loopback port; gives its address."""
    words = ["serve", str(artifact), "--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    print(f"\n$ teacher {' '.join(words)} &", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "teacher_server", *words, "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield _address(process)
    finally:
        process.terminate()
        process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    """Reads the server's lines until it is ready."""
    assert process.stdout is not None
    address = None
    for line in process.stdout:
        print(line, end="", flush=True)
        if found := re.search(r"grpc=(\S+)", line):
            address = f"grpc://{found[1]}"
        if "ready" in line and address:
            return address
    raise TrainingFailed("the teacher did not start")


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for all of it; an earlier demo there is replaced.")] = Path(
        "runs/demo"
    ),
    data: Annotated[Path | None, typer.Option(help="A data folder in HOSER format; without it a city is made.")] = None,
    teacher_epochs: Annotated[int, typer.Option(min=1)] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each student.")] = 6,
    count: Annotated[int, typer.Option(min=1, help="Trips that each student generates.")] = 150,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    on_policy: Annotated[
        bool, typer.Option("--on-policy", help="One student more, distilled on routes that it draws itself.")
    ] = False,
) -> None:
    """Everything once: data, a small served teacher, three students of the same seed, and one table."""
    start = time.monotonic()
    if data is not None and data.resolve().is_relative_to(out.resolve()):
        raise BadInput(f"--data {data}: lies in --out {out}, which the demo replaces; move it or name another --out")
    if data is not None and not data.is_dir():
        raise BadInput(f"--data {data}: no such folder; name a folder in HOSER format")
    _clear(out)
    city = data or out / "city"
    if data is None:
        run("trainer", "sample-city", "--out", city)
    effort = Effort(teacher_epochs, epochs, count)
    common = ("--data", city, "--cache", out / "cache")
    run("trainer", "prepare", *common)
    run("trainer", "tokens", *common, "--out", out / "tokens")
    run("teacher", "fit", out / "tokens", "--out", out / "teacher-run", "--epochs", str(effort.teacher_epochs))
    run("teacher", "export", out / "teacher-run", "--out", out / "teacher")
    run("teacher", "evaluate", out / "teacher", out / "tokens", "--out", out / "teacher-evaluation.json")
    with served(out / "teacher") as address:
        teachers = dict(zip(STUDENTS, ("none", "uniform", address), strict=True))
        if on_policy:
            teachers[ON_POLICY] = address
        for name, teacher in teachers.items():
            settings = ["--set", f"optimizer_config.max_epoch={effort.epochs}", "--seed", str(seed)]
            if name == ON_POLICY:
                settings += ["--set", f"distill.mode={ON_POLICY}"]
            run("trainer", "train", *common, "--out", out / name, "--teacher", teacher, *settings)
        judge = ("--teacher", address, "--teacher-evaluation", out / "teacher-evaluation.json")
        rows = {name: _judge(out / name, common, judge, effort) for name in teachers}
    run("trainer", "report", *(out / name for name in teachers), *common, "--out", out / "report.html")
    seconds = round(time.monotonic() - start, 1)
    write_json(out / "summary.json", {"students": rows, "digests": _digests(out, rows), "seconds": seconds})
    _show(rows)
    print(f"\nAll of it lies in {out}. To look at: {out / 'report.html'} (the table: summary.json); {seconds:.0f} s.")


def _clear(out: Path) -> None:
    """Makes room for a new demo, and only ever removes an old one."""
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise BadInput(f"{out}: holds something that is no demo; name another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_json(out / MARKER, {"made_by": "trainer demo"})


def _judge(
    student: Path, common: tuple[str | Path, ...], judge: tuple[str | Path, ...], effort: Effort
) -> dict[str, Any]:
    """Generates, evaluates with the teacher as a judge, and picks the table's figures."""
    expansions = ("--max-expansions", str(effort.max_expansions))
    run("trainer", "generate", student, *common, "--count", str(effort.count), *expansions)
    run("trainer", "evaluate", student, *common, *judge)
    summary = json.loads((student / "summary.json").read_text())
    evaluation = json.loads((student / "evaluation.json").read_text())
    return {name: summary[name] for name in SUMMARY} | {name: evaluation[name] for name in TRIPS}


def _digests(out: Path, students: Iterable[str]) -> dict[str, Any]:
    """Of the data, the teacher and every student."""
    summaries = {name: json.loads((out / name / "summary.json").read_text()) for name in students}
    return {
        "data": summaries["distilled"]["data_fingerprint"],
        "teacher": summaries["distilled"]["teacher"]["digest"],
        "students": {name: summary["model_digest"] for name, summary in summaries.items()},
    }


def _show(rows: dict[str, dict[str, Any]]) -> None:
    many = "Four" if ON_POLICY in rows else "Three"
    table = Table(title=f"{many} students of the same seed, on the test trips")
    table.add_column("figure")
    for name in rows:
        table.add_column(name, justify="right")
    for figure in (*SUMMARY, *TRIPS):
        table.add_row(figure, *(_text(row[figure]) for row in rows.values()))
    Console(width=100).print(table)


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
