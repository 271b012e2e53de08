"""The full state of a training run, written atomically and read without executing anything.

Learning rate, order and random numbers are functions of the position (see train.py), so the position stands for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import BadInput, CannotWrite, NotSaved
from trainer.files import whole_file
from trainer.learner import Learner
from trainer.step import Sums

OWN_COUNTS = ("own_trips", "own_reached", "own_steps")


@dataclass
class Progress:
    """How far a run has come."""

    epoch: int = 0  # the epoch under way
    epoch_step: int = 0  # optimiser steps done in it
    step: int = 0  # optimiser steps done in all
    best: float = -1.0  # best validation accuracy so far
    best_epoch: int = -1
    kl_missed: int = 0  # steps without a target because no teacher answered, where the policy is to go on without
    bad_steps: int = 0  # steps left out because the loss or its gradient was not finite
    epoch_sums: Sums = field(default_factory=Sums)  # over the epoch under way
    seconds: dict[str, float] = field(default_factory=dict)  # by part, over all sessions
    wandb_id: str = ""  # of the run at Weights & Biases
    own_trips: int = 0  # routes that the student has drawn
    own_reached: int = 0  # of these, those that reached their destination
    own_steps: int = 0  # their steps that the KL has counted
    own_routes: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # still to be used, by the step of the draw


def save_progress(file: Path, learner: Learner, progress: Progress) -> None:
    """Writes model, optimiser, scaler and position. Raises NotSaved."""
    state: dict[str, Any] = {
        "model": learner.student.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": learner.precision.scaler.state_dict(),
        "progress": asdict(progress),
    }
    try:
        with whole_file(file) as partial:
            torch.save(state, partial)
    except CannotWrite as error:
        raise NotSaved(str(error)) from error


def load_progress(file: Path, learner: Learner) -> Progress:
    """Restores in place what `save_progress` wrote. Raises BadInput."""
    with _usable(file):
        state = torch.load(file, map_location="cpu", weights_only=True)
        learner.student.load_state_dict(state["model"])
        learner.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            learner.precision.scaler.load_state_dict(state["scaler"])
        return _progress(state)


def read_progress(file: Path) -> Progress:
    """How far a run has come, without its student. Raises BadInput."""
    with _usable(file):
        return _progress(torch.load(file, map_location="cpu", weights_only=True, mmap=True))


def _progress(state: dict[str, Any]) -> Progress:
    saved = dict(state["progress"])
    return Progress(**saved | {"epoch_sums": Sums(**saved["epoch_sums"])})


@contextmanager
def _usable(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"{file}: no checkpoint here; nothing to resume") from None
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise BadInput(f"{file}: not a usable checkpoint ({' '.join(str(error).split())[:200]})") from None
