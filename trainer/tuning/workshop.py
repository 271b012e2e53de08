"""What all runs of a study share: data, one connection to the teacher, one folder of labels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna import Trial
from tqdm import tqdm

from trainer.commands.train import carry_out, make_trainer
from trainer.config import Config
from trainer.data.city import City
from trainer.errors import CannotWrite, Stopped
from trainer.guide import Guide, find_guide, guide_by
from trainer.ranks import Ranks
from trainer.run_folder import RunFolder
from trainer.teacher.address import LABELS, NONE
from trainer.teacher.pool import Pool
from trainer.tracking import EPOCH_FIGURE
from trainer.train import Trainer, set_numerics
from trainer.tuning.worker import BEGUN, CONTINUES


@dataclass(frozen=True)
class Workshop:
    """Where runs are made, one after another in this process."""

    out: Path
    city: City
    address: str
    teacher: Pool | None  # None where nobody is asked
    labels: Path
    device: torch.device
    cpu_threads: int | None
    about: dict[str, Any]  # of where data and teacher are, for each run's origin
    should_stop: Callable[[], bool]

    def train(
        self, config: Config, folder: RunFolder, taught: bool, on_epoch: Callable[[int, float], None]
    ) -> tuple[Trainer, Guide]:
        """A whole run, new or from where it stood. Raises Stopped, and what training raises."""
        guide = self.guide(config, taught)
        set_numerics(config, self.cpu_threads)  # also the seed of the fresh weights
        trainer = make_trainer(config, self.city, folder, guide, self.device, Ranks())
        trainer.should_stop, trainer.on_epoch = self.should_stop, on_epoch
        trainer.how_to_go_on = "the same command goes on"
        about = self.about | {"teacher_address": self.address if taught else NONE}
        if not carry_out(trainer, guide, about, resume=folder.begun):
            raise Stopped(f"{folder.root}: stopped at step {trainer.progress.step} and saved")
        return trainer, guide

    def guide(self, config: Config, taught: bool) -> Guide:
        """Who teaches a run; the connection is the workshop's. Raises TeacherMismatch or BadInput."""
        labels = self.labels if config.distill.keep_labels or self.address == LABELS else None
        if not taught or self.teacher is None:
            return find_guide(self.address if taught else NONE, config, self.city, labels)
        return guide_by(self.teacher, self.address, config, self.city, labels)

    def begin(self, kind: str, trial: Trial) -> RunFolder:
        """A trial's run folder: new, or a copy of the one that it goes on with. Raises CannotWrite.

        A copy, because a worker that was taken for dead may still write into the other.
        """
        folder = RunFolder(self.out / kind / str(trial.number))
        before = RunFolder(self.out / kind / str(trial.user_attrs.get(CONTINUES)))
        if before.begun and not folder.root.exists():
            draft = folder.root.with_name(f".{trial.number}.partial")
            try:
                shutil.rmtree(draft, ignore_errors=True)
                shutil.copytree(before.root, draft, ignore=shutil.ignore_patterns("*.partial"))
                os.replace(draft, folder.root)
            except (OSError, shutil.Error) as error:
                raise CannotWrite(f"{folder.root}: cannot be written ({error})") from None
        for epochs, accuracy in _logged(folder):
            trial.report(accuracy, epochs)
        trial.set_user_attr(BEGUN, f"{os.uname().nodename}:{os.getpid()}")
        return folder

    def say(self, text: str) -> None:
        tqdm.write(text)


def _logged(folder: RunFolder) -> list[tuple[int, float]]:
    """Epochs that a run has finished already, and the accuracy after each."""
    file = folder.metrics
    if not file.exists() or not folder.last.exists():
        return []
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    return [(line["epoch"] + 1, line[EPOCH_FIGURE]) for line in lines if EPOCH_FIGURE in line]
