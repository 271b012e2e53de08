"""A run is a folder: its settings, who taught it with which data, its metrics, checkpoints and summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import BadInput
from trainer.files import write_json, write_text

IMPORTED = "imported"  # stands for the teacher of an original checkpoint, which does not name one


@dataclass(frozen=True)
class Origin:
    """What a run was made from; a resumed run must have the same."""

    config: dict[str, Any]
    data_fingerprint: str
    teacher: str  # kind of target: "none", "uniform" or the teacher's digest
    ranks: int = 1  # processes that share every step

    def difference(self, other: Origin) -> str | None:
        """The first way in which two origins differ, naming both sides."""
        if self.data_fingerprint != other.data_fingerprint:
            return f"data: the run was made with {self.data_fingerprint[:16]}, this is {other.data_fingerprint[:16]}"
        if self.teacher != other.teacher:
            return f"teacher: the run was made with {self.teacher[:16]}, this is {other.teacher[:16]}"
        if self.ranks != other.ranks:
            return f"ranks: the run was made with {self.ranks} processes, this is one with {other.ranks}"
        return _first_difference("config", self.config, other.config)


def _first_difference(name: str, mine: Any, other: Any) -> str | None:
    if isinstance(mine, dict) and isinstance(other, dict):
        for key in sorted(mine.keys() | other.keys()):
            found = _first_difference(f"{name}.{key}", mine.get(key), other.get(key))
            if found:
                return found
        return None
    return None if mine == other else f"{name}: the run was made with {mine!r}, this is {other!r}"


# What a run that was killed at its very start leaves; nothing of it is worth anything.
BEGINNINGS = {"checkpoints", "config.yaml", "config.yaml.partial", "origin.json.partial"}


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run lie."""

    root: Path

    @property
    def begun(self) -> bool:
        """Whether there is a run, which can be resumed."""
        return (self.root / "origin.json").exists()

    @property
    def last(self) -> Path:
        """Everything needed to go on."""
        return self.root / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The student with the best validation accuracy."""
        return self.root / "checkpoints" / "best.safetensors"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def generated(self) -> Path:
        return self.root / "generated.csv"

    def create(self, origin: Origin, config: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Starts a new run with all its settings. Raises BadInput or CannotWrite.

        Once `origin.json` is there, the run can be resumed.
        """
        self.check_new()
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.root}: cannot write a run here ({error.strerror})") from None
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False))
        write_json(self.root / "origin.json", asdict(origin) | dict(about))

    def check_new(self) -> None:
        """Raises BadInput when there is something else than the empty beginnings of a run."""
        if self.root.is_dir() and not self.begun:
            strange = {entry.name for entry in self.root.iterdir()} - BEGINNINGS
            if not strange and not any((self.root / "checkpoints").glob("*")):
                return
        if self.root.exists():
            raise BadInput(f"{self.root}: is not empty; continue this run with --resume or name another --out")

    @property
    def config(self) -> Path:
        """The run's own settings."""
        return self.root / "config.yaml"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def saved(self) -> dict[str, Any]:
        """`origin.json`: what this run was made from, and where its data and teacher were. Raises BadInput."""
        self.origin()
        return dict(json.loads((self.root / "origin.json").read_text()))

    def origin(self) -> Origin:
        """What this run was made from. Raises BadInput when this is no run."""
        try:
            saved = json.loads((self.root / "origin.json").read_text())
            return Origin(saved["config"], saved["data_fingerprint"], saved["teacher"], saved["ranks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{self.root}: is not the folder of a training run ({error})") from None
