"""A teacher's run folder: what a fit leaves behind, and from what it can go on.

config.json         settings, model sizes, special tokens, grid and fingerprint of the data; written once
metrics.jsonl       one line an epoch
best.safetensors    the weights with the lowest validation loss so far
checkpoint.pt       everything needed to go on; plain tensors and numbers only
summary.json        written when the fit is complete
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from teacher_server.artifact import TIED
from teacher_server.description import check_vocabulary, read_fields
from teacher_server.errors import BadArtifact, BadSettings
from teacher_server.files import reason, remove_partial, whole_file, write_text
from teacher_server.fit.settings import FitSettings
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.vocabulary import Grid, SpecialTokens

GO_ON = "make room there, then go on with --resume"


@dataclass(frozen=True)
class FitConfig:
    """What a run was started with and keeps to its end."""

    settings: FitSettings
    model: ModelConfig
    special: SpecialTokens
    grid: Grid
    data_fingerprint: str


class FitRun:
    """Reads and writes one run folder; every file appears whole or not at all.

    What writes raises BadSettings where that fails, on a full disk for example; what was there before stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"

    def create(self, config: FitConfig) -> None:
        """Start a new run. Raises BadSettings where the folder holds something already."""
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise BadSettings(f"{self.folder} is not empty: choose another folder, or pass --resume to go on there")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadSettings(f"{self.folder}: cannot be made: {error.strerror or error}") from None
        write_text(self.folder / "config.json", _json({"format": 1, **asdict(config)}))

    def config(self) -> FitConfig:
        """What the run was started with. Raises BadSettings."""
        path = self.folder / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            config = FitConfig(
                read_fields(FitSettings, raw["settings"], "settings"),
                read_fields(ModelConfig, raw["model"], "model"),
                read_fields(SpecialTokens, raw["special"], "special"),
                read_fields(Grid, raw["grid"], "grid"),
                str(raw["data_fingerprint"]),
            )
            check_vocabulary(config.model.vocab_size, config.special, config.grid)
            return config
        except FileNotFoundError:
            raise BadSettings(f"{path} does not exist: {self.folder} is no run of `teacher fit`") from None
        except (KeyError, TypeError) as error:
            raise BadSettings(f"{path}: field {error} is missing") from None
        except (OSError, ValueError) as error:
            raise BadSettings(f"{path}: {error}") from None

    def remove_partial(self) -> None:
        """Remove what a fit that was killed while it wrote has left."""
        remove_partial(self.folder)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        # Through an open file, for torch's own message on a full disk says nothing of it.
        with whole_file(self.folder / "checkpoint.pt", GO_ON) as path, path.open("wb") as file:
            torch.save(dict(state), file)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The newest state, or None where the run ended before its first. Raises BadSettings where unreadable."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise anything
            reason = str(error).strip().splitlines()[:1]
            raise BadSettings(f"{path}: cannot be read: {reason[0] if reason else type(error).__name__}") from None
        return dict(state)

    def save_best(self, model: LMTAD) -> None:
        weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items() if name != TIED}
        with whole_file(self.best, GO_ON) as path:
            save_file(weights, path)

    def load_best(self) -> dict[str, Tensor]:
        """The weights to export. Raises BadArtifact where no epoch has been completed or the file is damaged."""
        if not self.best.exists():
            raise BadArtifact(f"{self.best} does not exist: the fit has not completed an epoch; go on with --resume")
        try:
            return load_file(self.best)
        except (SafetensorError, OSError) as error:
            raise BadArtifact(f"{self.best}: not a complete safetensors file: {error}") from None

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise BadSettings(f"{path}: cannot be written ({reason(error)}): {GO_ON}") from None

    def keep_metrics(self, epochs: int) -> None:
        """Drop what was logged after the checkpoint that is gone on from: it will be logged again."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()[:epochs] if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines), GO_ON)

    def summary(self) -> dict[str, Any] | None:
        """What a complete run found; None while it is not complete."""
        path = self.folder / "summary.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        write_text(self.folder / "summary.json", _json(summary), GO_ON)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
