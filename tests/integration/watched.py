"""A trainer that is watched while it runs: how far it is, what it says, and that it does not hang."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.line import Line
from tests.integration.runs import command, steps_logged

SLACK_S = 20.0  # for what a loaded machine takes beside the deadlines


@dataclass(frozen=True)
class Run:
    """A trainer at work."""

    process: subprocess.Popen[bytes]
    out: Path
    errors: Path

    @property
    def step(self) -> int:
        return max(steps_logged(self.out), default=0)

    def said(self) -> str:
        return self.errors.read_text()

    def until(self, true: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds + SLACK_S
        while not true():
            assert self.process.poll() is None, f"it ended with status {self.process.returncode}: {self.said()}"
            assert time.monotonic() < deadline, f"stuck at step {self.step}: {self.said()}"
            time.sleep(0.02)

    def goes_on(self, steps: int, seconds: float) -> None:
        """Makes some more steps in so many seconds."""
        enough = self.step + steps
        self.until(lambda: self.step >= enough, seconds)

    def ends(self, status: int, seconds: float) -> str:
        """What it has said when it has ended so."""
        assert self.process.wait(seconds + SLACK_S) == status, self.said()
        assert "Traceback" not in self.said()
        return self.said()


@contextmanager
def running(line: Line, out: Path, places: str, *flags: str, within: Sequence[str] = ()) -> Iterator[Run]:
    """`within`: words before the trainer's command that run it elsewhere, as the same process."""
    errors = out.with_suffix(".errors")
    with errors.open("wb") as file:
        words = [*within, *command(line, out, "--teacher", f"grpc://{places}", *flags)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=file)
    run = Run(process, out, errors)
    try:
        yield run
    finally:
        process.kill()
        process.wait()
