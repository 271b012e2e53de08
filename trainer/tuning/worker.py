"""A worker: takes one trial after another from a study that it may share with other workers, until all are done.

A trial whose worker stopped, failed or died is over, and its values wait as a new trial that goes on where it stood:
so every trial that counts was finished by one worker, once.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Protocol

import optuna
from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from trainer.errors import Stopped, TrainingFailed

CONTINUES = "continues"  # number of the trial that this one goes on with
BEGUN = "begun"  # a trial without it has not come as far as its first step
KEPT = ("arm", "seed", "config", CONTINUES)  # of a trial's attributes, what another one takes over
POLL_S = 1.0
START_S = 60.0  # a trial takes much less from its beginning to its training


class Surplus(Exception):  # not an error: the trial is dropped
    """Another worker was first."""


class Phase(Protocol):
    """A part of a study: which trials there are to do, and how one is done."""

    study: Study

    def open(self) -> bool:
        """Whether a trial is to be begun."""
        ...

    def surplus(self, trial: FrozenTrial) -> bool:
        """Whether a trial that was just begun is one too many."""
        ...

    def run(self, trial: Trial) -> float:
        """Does a trial; its value. Raises TrialPruned for one that is given up, and errors that end the worker."""
        ...


def work(phase: Phase, patience_s: float, should_stop: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Works until nothing is left to do and no other worker is at it. Raises Stopped, and what a trial raises."""
    waiting, seen = False, dict[int, float]()
    while not should_stop():
        _reclaim(phase.study, seen)
        if phase.open():
            waiting = False
            _one(phase)
        elif running := phase.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not waiting:
                numbers = ", ".join(str(trial.number) for trial in running)
                say(f"waiting for other workers, who do {numbers}; a dead one is noticed after {patience_s:g} s")
            waiting = True
            time.sleep(POLL_S)
        else:
            return
    raise Stopped("stopped between two trials")


def _one(phase: Phase) -> None:
    """Begins and ends one trial."""
    current: list[int] = []
    lost = False

    def objective(trial: Trial) -> float:
        nonlocal lost
        current.append(trial.number)
        if phase.surplus(phase.study.get_trials(deepcopy=False)[trial.number]):
            raise Surplus
        try:
            return phase.run(trial)
        except UpdateFinishedTrialError:
            lost = True
            raise

    try:
        phase.study.optimize(objective, n_trials=1, catch=(Surplus,), gc_after_trial=True)
    except Exception as error:
        if lost:
            raise TrainingFailed(
                f"trial {current[-1]}: this worker was silent for so long that another one goes on with the trial; "
                "start it again"
            ) from error
        if current:
            give_back(phase.study, phase.study.get_trials(deepcopy=False)[current[-1]])
        raise


def _reclaim(study: Study, seen: dict[int, float]) -> None:
    """Gives back the trials of dead workers. `seen`: when this worker first saw a trial that has not begun to train."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # calls give_back
    now = time.monotonic()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Optuna takes no notice of a worker that died before its first heartbeat.
        if BEGUN not in trial.user_attrs and now - seen.setdefault(trial.number, now) > START_S:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            give_back(study, trial)


def give_back(study: Study, trial: FrozenTrial) -> None:
    """Lets a trial's values wait for a worker, once."""
    if any(other.user_attrs.get(CONTINUES) == trial.number for other in study.get_trials(deepcopy=False)):
        return
    kept = {name: value for name, value in trial.user_attrs.items() if name in KEPT}
    came_to_training = BEGUN in trial.user_attrs
    study.enqueue_trial(trial.params, kept | ({CONTINUES: trial.number} if came_to_training else {}))
