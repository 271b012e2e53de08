"""What a run that something ends early says and leaves: the last whole step, from which it goes on."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import read_progress
from trainer.commands.train import make_trainer
from trainer.config_file import config_from
from trainer.data.city import City
from trainer.data.features import Features
from trainer.data.trips import Ints
from trainer.errors import (
    BadInput,
    CannotWrite,
    Diverged,
    NotSaved,
    Stopped,
    TeacherMismatch,
    TeacherUnavailable,
    TrainerError,
)
from trainer.guide import Guide
from trainer.ranks import Ranks
from trainer.run_folder import RunFolder
from trainer.teacher.targets import Target, Targets, UniformTargets
from trainer.train import Trainer

STEPS = 3  # of an epoch of the city's trips
LOST = r"last\.pt: cannot be written \(no room: disk full\?\); training stopped at step 2, --resume continues$"


@dataclass
class Failing:
    """Uniform answers to the first `good` questions, then an error."""

    error: TrainerError
    good: int = 2

    def of(self, trips: Ints, features: Features) -> Target:
        self.good -= 1
        if self.good < 0:
            raise self.error
        return UniformTargets().of(trips, features)


def trainer_of(city: City, folder: Path, targets: Targets | None = None, **training: int) -> Trainer:
    """A run of two epochs that asks about one step after another."""
    torch.manual_seed(3)
    config = config_from(
        {
            "optimizer_config": {"batch_size": 16, "max_epoch": 2},
            "distill": {"prefetch": 0},
            "profiling": {"log_interval": 1},
            "training": training,
        }
    )
    run = RunFolder(folder)
    run.last.parent.mkdir(parents=True, exist_ok=True)
    guide = Guide("made", targets or UniformTargets(), None, {})
    return make_trainer(config, city, run, guide, torch.device("cpu"), Ranks())


def goes_on(city: City, folder: Path) -> Trainer:
    trainer = trainer_of(city, folder)
    trainer.resume()
    assert trainer.run()
    return trainer


@pytest.mark.parametrize("kind", [BadInput, TeacherMismatch, TeacherUnavailable, CannotWrite])
def test_whatever_ends_a_run_saves_it(city: City, tmp_path: Path, kind: type[TrainerError]) -> None:
    """BadInput is what a refused token or request becomes, CannotWrite may come from the label store."""
    trainer = trainer_of(city, tmp_path, Failing(kind("it is over")))
    with pytest.raises(kind, match=r"^it is over; training stopped at step 2, --resume continues$"):
        trainer.run()
    assert read_progress(trainer.folder.last).step == 2
    assert goes_on(city, tmp_path).progress.step == 2 * STEPS


def test_a_run_that_diverged_is_saved_but_not_to_go_on(city: City, tmp_path: Path) -> None:
    trainer = trainer_of(city, tmp_path, max_bad_steps=0)
    torch.nn.init.constant_(next(trainer.learner.student.parameters()), float("nan"))
    with pytest.raises(Diverged, match=r"training stopped at step 1$"):
        trainer.run()
    assert read_progress(trainer.folder.last).step == 1


def test_a_checkpoint_that_cannot_be_written_is_not_tried_again(
    city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(city, tmp_path, checkpoint_every_s=0)
    tries = []

    def save(state: object, file: Path) -> None:
        tries.append(file)
        if len(tries) > 2:
            raise RuntimeError("no room")
        whole(state, file)

    whole = torch.save
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(NotSaved, match=LOST):
        trainer.run()
    assert len(tries) == 3
    assert read_progress(trainer.folder.last).step == 1


def test_a_best_student_that_cannot_be_written_is_written_by_the_resumed_run(city: City, tmp_path: Path) -> None:
    trainer = trainer_of(city, tmp_path)
    trainer.folder.best.mkdir()
    with pytest.raises(CannotWrite, match=f"cannot be written.*stopped at step {STEPS}, --resume continues"):
        trainer.run()
    assert read_progress(trainer.folder.last).best == -1, "a resumed run would not write it"
    trainer.folder.best.rmdir()
    again = goes_on(city, tmp_path)
    assert again.folder.best.is_file()


@dataclass
class Silent:
    """Answers when it is told to; says when it is asked."""

    asked: threading.Event = field(default_factory=threading.Event)
    told: threading.Event = field(default_factory=threading.Event)

    def of(self, trips: Ints, features: Features) -> Target:
        self.asked.set()
        self.told.wait()
        return UniformTargets().of(trips, features)


def test_a_stop_ends_the_test_of_a_student_that_waits_for_its_teacher(city: City, tmp_path: Path) -> None:
    trainer, teacher = trainer_of(city, tmp_path), Silent()
    trainer.should_stop = teacher.asked.is_set
    with pytest.raises(Stopped):
        trainer.measure(city.trips["test"], teacher)
    teacher.told.set()


def test_a_stop_in_a_validation_is_seen_after_the_batch_under_way(city: City, tmp_path: Path) -> None:
    trainer = trainer_of(city, tmp_path)
    looks = itertools.count()
    trainer.should_stop = lambda: trainer.progress.epoch_step == STEPS and next(looks) > 0
    assert not trainer.run()
    saved = read_progress(trainer.folder.last)
    assert (saved.epoch, saved.epoch_step, saved.best) == (0, STEPS, -1)
    assert goes_on(city, tmp_path).progress.step == 2 * STEPS
