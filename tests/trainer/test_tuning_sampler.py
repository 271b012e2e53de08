"""Samplers and the pruner: reproducible whatever the workers do, and no pickles."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from trainer.config import Config
from trainer.tuning.sampler import make_pruner, make_sampler
from trainer.tuning.settings import Tuning
from trainer.tuning.storage import open_study


def settings_of(kind: str, **others: object) -> Tuning:
    return Tuning.model_validate({"sampler": {"sampler_type": kind, "seed": 3}, **others})


def objective(trial: optuna.Trial) -> float:
    """Best at lambda 0.01, window 5."""
    weight = trial.suggest_float("lambda", 1e-3, 1e-1, log=True)
    window = trial.suggest_int("window", 2, 8)
    trial.suggest_categorical("layers", [1, 2])
    return -abs(weight - 0.01) - 0.1 * abs(window - 5)


def searched(storage: InMemoryStorage, name: str, settings: Tuning, sessions: list[int]) -> list[dict[str, object]]:
    """Values of all trials, done by one worker after another."""
    for trials in sessions:
        study = open_study(storage, name, settings)
        study.optimize(objective, n_trials=trials)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("kind", ["tpe", "cmaes", "random"])
def test_a_study_that_was_interrupted_suggests_the_same(kind: str) -> None:
    settings = settings_of(kind)
    storage = InMemoryStorage()
    whole = searched(storage, "whole", settings, [9])
    assert searched(storage, "parts", settings, [1, 6, 2]) == whole
    assert len({str(values) for values in whole}) > 7
    other = Tuning.model_validate({"sampler": {"sampler_type": kind, "seed": 4}})
    assert searched(storage, "other", other, [1]) != whole[:1]


def test_cma_es_finds_what_chance_does_not() -> None:
    found = {}
    for kind in ("cmaes", "random"):
        study = optuna.create_study(sampler=make_sampler(settings_of(kind)), direction="maximize")
        study.optimize(objective, n_trials=60)
        found[kind] = sum(trial.value or 0 for trial in study.trials[-20:]) / 20
        for trial in study.trials:
            assert 2 <= trial.params["window"] <= 8
            assert 1e-3 <= trial.params["lambda"] <= 1e-1
    assert found["cmaes"] > -0.06
    assert found["random"] < -0.12


def test_cma_es_leaves_no_pickle_in_the_storage() -> None:
    """What Optuna's own sampler keeps there is run when it is read."""
    study = open_study(InMemoryStorage(), "study", settings_of("cmaes"))
    study.optimize(objective, n_trials=12)
    assert all(not trial.system_attrs for trial in study.trials)


def test_one_number_alone_is_drawn_at_random() -> None:
    study = optuna.create_study(sampler=make_sampler(settings_of("cmaes")))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9)
    assert len({trial.params["x"] for trial in study.trials}) == 9


def test_hyperband_ends_trials_that_do_worse() -> None:
    settings = Tuning.model_validate({"max_epochs": 9, "pruner": {"min_resource": 1}})
    study = optuna.create_study(pruner=make_pruner(settings), direction="maximize")

    def trained(trial: optuna.Trial) -> float:
        for epoch in range(1, 10):
            trial.report(-trial.number, epoch)  # the first is the best
            if trial.should_prune():
                raise optuna.TrialPruned
        return -trial.number

    study.optimize(trained, n_trials=12)
    states = [trial.state for trial in study.trials]
    assert states[0] == TrialState.COMPLETE
    assert states.count(TrialState.PRUNED) >= 6


def test_a_trial_that_goes_on_competes_once() -> None:
    """Of four trials the two best pass; the first one's failed beginning does not take the second place."""
    settings = Tuning.model_validate({"max_epochs": 3, "pruner": {"min_resource": 2, "reduction_factor": 2}})
    study = optuna.create_study(pruner=make_pruner(settings), direction="maximize")

    def passes(value: float) -> tuple[optuna.Trial, bool]:
        trial = study.ask()
        trial.report(value, 2)
        return trial, not trial.should_prune()

    beginning, _ = passes(0.9)
    study.tell(beginning, state=TrialState.FAIL)
    assert [passes(value)[1] for value in (0.9, 0.5, 0.6, 0.8)] == [True, False, False, True]


def test_a_pruner_that_starts_after_the_last_epoch_ends_nothing() -> None:
    for settings in (Tuning.model_validate({"max_epochs": 2}), Tuning(pruner_type="none"), Config().optuna):
        make_pruner(settings)
