"""Three teachers behind one name and two trainers that ask them all the time, each on a host of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.hosts.names import Names
from bench.hosts.network import Host, Network
from tests.integration.line import Line, city_teacher
from tests.integration.mortal import Mortal
from tests.integration.runs import command, epochs
from tests.integration.watched import Run, running
from trainer.data.prepare import prepare
from trainer.data.sample_city import write_sample_city
from trainer.teacher.member import LONGEST_BACKOFF_S
from trainer.teacher.members import PROBE_S

TEACHERS = "teachers.test"
PORT = 8001
METRICS = "127.0.0.1:8000"  # on each teacher's host
WHERE = f"{TEACHERS}:{PORT}"
HOSTS = ("names", "teacher-1", "teacher-2", "teacher-3", "trainer-1", "trainer-2")
DEADLINE_S = 5.0  # of a question
RETURN_S = 1.3 * LONGEST_BACKOFF_S + PROBE_S  # until somebody who is back is asked again
START_S = 30.0  # of a server on a loaded machine
EPOCHS = 4  # of 6 steps
SEQUENCES = "16"  # a step is one request then, and labelling several
# Nothing is kept, so that every step of every epoch has to be asked about.
ASKING = ("--set", "distill.keep_labels=false", "--set", "distill.prefetch=0", "--set",
          f"distill.deadline_s={DEADLINE_S}", *epochs(EPOCHS))  # fmt: skip


def small_line(folder: Path) -> Line:
    write_sample_city(folder / "city", roads=150, trips=120, seed=5)
    city = prepare(folder / "city", folder / "cache").city
    city_teacher(folder / "teacher", city)
    return Line(folder / "city", folder / "cache", folder / "teacher", city)


@dataclass(frozen=True)
class Teacher:
    """A host and its server."""

    host: Host
    server: Mortal

    @property
    def name(self) -> str:
        """As trainers call it."""
        return f"{WHERE} ({self.host.address})"

    def answered(self) -> int:
        """Requests since its start; 0 while it does not say."""
        found = self.host.popen("curl", "-s", "-m", "2", f"http://{METRICS}/metrics", stdout=subprocess.PIPE)
        text = found.communicate()[0]
        match = re.search(r'teacher_requests_total\{model="teacher",outcome="ok"\} (\S+)', text)
        return int(float(match[1])) if match else 0


class Stage:
    """Use it in a `with`."""

    def __init__(self, folder: Path, pace_s: float) -> None:
        """`pace_s`: how long every answer takes at least."""
        self.folder, self._pace_s = folder, pace_s
        self.line = small_line(folder)
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            self.network = stack.enter_context(Network(self.folder, *HOSTS))
            hosts = [self.network[name] for name in HOSTS]
            self.trainers = hosts[4:]
            self.names = Names(hosts[0].popen, self.folder, {TEACHERS: [host.address for host in hosts[1:4]]})
            stack.callback(self.names.stop)
            flags = ("--max-queue-delay", str(self._pace_s), "--http-address", METRICS, "--max-sequences", SEQUENCES)
            self.teachers: list[Teacher] = []
            for host in hosts[1:4]:
                server = Mortal(self.line.teacher, f"{host.address}:{PORT}", flags, host.within)
                stack.callback(server.kill)
                self.teachers.append(Teacher(host, server))
            self.undisturbed = self.trained(self.trainers[0], "undisturbed", f"local:{self.line.teacher}", *ASKING)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def recover(self) -> None:
        """All are well."""
        for teacher in self.teachers:
            teacher.server.recover()
        for teacher in self.teachers:
            teacher.server.ready()

    def trained(self, host: Host, name: str, teacher: str, *flags: str) -> Path:
        """The folder of a run that has ended well."""
        out = self.folder / name
        self.do(host, *command(self.line, out, "--teacher", teacher, *flags))
        return out

    def do(self, host: Host, *words: str) -> None:
        done = host.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        errors = done.communicate(timeout=200)[1]
        assert done.returncode == 0, errors

    def label_words(self, labels: Path) -> list[str]:
        where = ("--data", str(self.line.data), "--cache", str(self.line.cache), "--labels", str(labels))
        return [sys.executable, "-m", "trainer", "label", *where, "--teacher", f"grpc://{WHERE}", *ASKING[-4:-2]]

    @contextmanager
    def training(self, name: str) -> Iterator[Runs]:
        """Both trainers at work, each past its first step."""
        with ExitStack() as stack:
            runs = Runs(
                [
                    stack.enter_context(
                        running(self.line, self.folder / f"{name}-{host.name}", WHERE, *ASKING, within=host.within)
                    )
                    for host in self.trainers
                ]
            )
            runs.go_on(1, START_S)
            yield runs


@dataclass(frozen=True)
class Runs:
    """Trainers at work."""

    each: Sequence[Run]

    def go_on(self, steps: int, seconds: float) -> None:
        """Each makes some more steps in so many seconds."""
        enough = [run.step + steps for run in self.each]
        for run, step in zip(self.each, enough, strict=True):
            run.until(lambda run=run, step=step: run.step >= step, seconds)  # type: ignore[misc]

    def until(self, true: Callable[[], bool], seconds: float) -> None:
        """All of them are still at work when it becomes true."""
        self.each[0].until(true, seconds)
        for run in self.each:
            assert run.process.poll() is None, f"it ended with status {run.process.returncode}: {run.said()}"

    def ask_again(self, teacher: Teacher, seconds: float) -> None:
        before = teacher.answered()
        self.until(lambda: teacher.answered() > before, seconds)

    def end(self, seconds: float) -> None:
        begun = time.monotonic()
        for run in self.each:
            run.ends(0, max(seconds - (time.monotonic() - begun), 0))

    def waits(self) -> list[float]:
        """Of each run, how many seconds the step had to wait whose answer came last."""
        lines = [(run.out / "metrics.jsonl").read_text().splitlines() for run in self.each]
        return [max(_wait(json.loads(text)) for text in texts) for texts in lines]


def _wait(values: dict[str, Any]) -> float:
    return float(values.get("perf/distill_kl_(teacher)_ms", 0)) / 1000
