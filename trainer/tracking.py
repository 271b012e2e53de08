"""Where a run's figures go, by optimiser step: `metrics.jsonl`, always, and what else is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.files import write_text


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


class MetricsLog:
    """`metrics.jsonl`: one JSON object a line, each with its optimiser step."""

    def __init__(self, file: Path, resume_at: int) -> None:
        """Keeps the lines up to the optimiser step at which a run goes on; a half-written last line is dropped."""
        if file.exists():
            write_text(file, "".join(line + "\n" for line in file.read_text().splitlines() if _keeps(line, resume_at)))
        self._stream = file.open("a")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _keeps(line: str, resume_at: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= resume_at)
    except (ValueError, KeyError, TypeError):
        return False
