"""Where a run's figures go, by optimiser step: `metrics.jsonl`, always, and what else is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import NotSaved
from trainer.files import write_text

EPOCH_FIGURE = "val/next_step_acc"  # only lines about a whole epoch have it


class Tracker(Protocol):
    """Keeps figures."""

    def write(self, step: int, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Trackers:
    """All trackers of a run; none on ranks other than the first."""

    each: Sequence[Tracker] = ()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        for tracker in self.each:
            tracker.write(step, values)

    def close(self) -> None:
        for tracker in self.each:
            tracker.close()


class Dispensable:
    """A tracker that training goes on without: its first failure is said, and ends the tracker only."""

    def __init__(self, name: str, opened: Callable[[], Tracker], say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._tracker: Tracker | None = None
        with self._surviving():
            self._tracker = opened()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Figures that are not known (None) are left out."""
        if self._tracker:
            with self._surviving():
                self._tracker.write(step, {name: value for name, value in values.items() if value is not None})

    def close(self) -> None:
        if self._tracker:
            with self._surviving():
                self._tracker.close()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever other people's code raises
            self._tracker = None
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._say(f"warning: {self._name} failed ({reason}); training goes on without it")


class MetricsLog:
    """`metrics.jsonl`: one JSON object a line, each with its optimiser step."""

    def __init__(self, file: Path, step: int, epoch: int) -> None:
        """Keeps the lines up to the optimiser step and epoch at which a run goes on; drops a half-written last line."""
        if file.exists():
            lines = file.read_text().splitlines()
            write_text(file, "".join(line + "\n" for line in lines if _keeps(line, step, epoch)))
        self._file, self._stream = file, file.open("ab", buffering=0)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Raises NotSaved; then a part of the line may be there, which a resumed run drops."""
        line = (json.dumps({"step": step, **values}) + "\n").encode()
        try:
            written = self._stream.write(line)
        except OSError as error:
            raise NotSaved(f"{self._file}: cannot be written ({error.strerror})") from error
        if written != len(line):
            raise NotSaved(f"{self._file}: cannot be written (disk full?)")

    def close(self) -> None:
        self._stream.close()


def _keeps(line: str, step: int, epoch: int) -> bool:
    """An epoch's own line comes before the checkpoint that ends the epoch, so it may be there too early."""
    try:
        values = json.loads(line)
        unfinished = EPOCH_FIGURE in values and values["epoch"] >= epoch
        return bool(values["step"] <= step and not unfinished)
    except (ValueError, KeyError, TypeError):
        return False
