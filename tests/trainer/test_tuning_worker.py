"""Workers that share a study: every trial is done by one, those of dead and failed workers go on elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from trainer.errors import Stopped, TeacherUnavailable, TrainingFailed
from trainer.tuning.settings import Tuning
from trainer.tuning.storage import open_storage, open_study, sqlite_url
from trainer.tuning.worker import BEGUN, CONTINUES, give_back, work

QUICK = Tuning(heartbeat_s=1)
PATIENCE_S = 3.0


@dataclass
class Fixed:
    """A phase of a given number of trials that do what they are told."""

    study: optuna.Study
    trials: int
    do: Callable[[optuna.Trial], float] = lambda trial: trial.suggest_float("x", 0, 1)
    done: list[int] = field(default_factory=list)

    def open(self) -> bool:
        counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return len(self.study.get_trials(states=counted)) < self.trials

    def surplus(self, trial: FrozenTrial) -> bool:
        others = self.study.get_trials()
        return sum(t.number < trial.number and t.state != TrialState.FAIL for t in others) >= self.trials

    def run(self, trial: optuna.Trial) -> float:
        trial.set_user_attr(BEGUN, "here")
        value = self.do(trial)
        self.done.append(trial.number)
        return value


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> RDBStorage:
    return open_storage(sqlite_url(tmp_path_factory.mktemp("storage") / "study.db"), QUICK)


@pytest.fixture
def study(storage: RDBStorage, request: pytest.FixtureRequest) -> optuna.Study:
    return open_study(storage, request.node.name, QUICK)


def begun(study: optuna.Study) -> optuna.Trial:
    """A trial that somebody begins and no thread keeps alive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return study.ask()


def finish(phase: Fixed, said: list[str] | None = None) -> None:
    work(phase, PATIENCE_S, lambda: False, (said if said is not None else []).append)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_all_trials_and_no_more(study: optuna.Study) -> None:
    phase = Fixed(study, 4)
    finish(phase)
    finish(phase)
    assert phase.done == [0, 1, 2, 3]


def test_a_real_error_is_loud_and_its_trial_goes_on_later(study: optuna.Study) -> None:
    def fails(trial: optuna.Trial) -> float:
        value = trial.suggest_float("x", 0, 1)
        if trial.number == 1:
            raise TeacherUnavailable("no teacher answers")
        return value

    with pytest.raises(TeacherUnavailable, match="no teacher answers"):
        finish(Fixed(study, 3, fails))
    assert states(study) == ["COMPLETE", "FAIL", "WAITING"]
    finish(Fixed(study, 3, fails))
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[2].user_attrs[CONTINUES] == 1
    assert study.trials[2].params == study.trials[1].params


def test_pruned_trials_count(study: optuna.Study) -> None:
    def prunes(trial: optuna.Trial) -> float:
        raise optuna.TrialPruned

    finish(Fixed(study, 3, prunes))
    assert states(study) == ["PRUNED"] * 3


def test_a_stop_between_trials(study: optuna.Study) -> None:
    phase = Fixed(study, 5)
    with pytest.raises(Stopped):
        work(phase, PATIENCE_S, lambda: len(phase.done) == 2, print)
    assert phase.done == [0, 1]


def test_one_trial_too_many_is_dropped(study: optuna.Study) -> None:
    """As when two workers begin the last trial at the same moment."""
    phase = Fixed(study, 2)
    finish(phase)
    eager = Fixed(study, 2)
    answers = iter([True, False])
    eager.open = lambda: next(answers)  # type: ignore[method-assign]
    finish(eager)
    assert eager.done == []
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_the_trial_of_a_dead_worker_goes_on_elsewhere(study: optuna.Study) -> None:
    dead = begun(study)
    dead.suggest_float("x", 0, 1)
    dead.set_user_attr(BEGUN, "elsewhere")
    study._storage.record_heartbeat(dead._trial_id)  # type: ignore[attr-defined]
    said: list[str] = []
    phase = Fixed(study, 2)
    finish(phase, said)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[2].user_attrs[CONTINUES] == 0
    assert study.trials[2].params == study.trials[0].params
    assert said == ["waiting for other workers, who do 0; a dead one is noticed after 3 s"]


def test_a_worker_that_died_before_its_first_heartbeat(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.tuning.worker.START_S", 0.5)
    study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
    finish(Fixed(study, 1))
    assert states(study) == ["FAIL", "COMPLETE"]


def test_a_worker_that_was_taken_for_dead_says_so(study: optuna.Study) -> None:
    def overtaken(trial: optuna.Trial) -> float:
        study.tell(trial.number, state=TrialState.FAIL)
        give_back(study, study.trials[trial.number])
        trial.report(0.5, 1)
        return 0.5

    with pytest.raises(TrainingFailed, match="trial 0: this worker was silent for so long"):
        finish(Fixed(study, 1, overtaken))
    assert states(study) == ["FAIL", "WAITING"]


def test_a_trial_is_given_back_once(study: optuna.Study) -> None:
    trial = begun(study)
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr(BEGUN, "here")
    study.tell(trial, state=TrialState.FAIL)
    for _ in range(2):
        give_back(study, study.trials[0])
    assert states(study) == ["FAIL", "WAITING"]
