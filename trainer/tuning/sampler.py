"""How a trial's values are chosen, and when a trial is ended early.

What a sampler suggests depends on the study's seed, the number of the trial and the finished trials only, so that it
does not matter how many workers there are or how often they were started.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

from trainer.tuning.settings import Tuning

Number = FloatDistribution | IntDistribution


def make_sampler(settings: Tuning) -> BaseSampler:
    """The sampler that the settings ask for."""
    kinds: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=settings.startup_trials),
        "cmaes": CmaSampler,
        "random": lambda seed: RandomSampler(seed=seed),
    }
    return SeededByTrial(kinds[settings.sampler.sampler_type], settings.sampler.seed)


def make_pruner(settings: Tuning) -> BasePruner:
    """The pruner that the settings ask for, in epochs."""
    if settings.pruner_type == "none":
        return NopPruner()
    least = min(settings.pruner.min_resource, settings.max_epochs)
    return Hyperband(least, settings.max_epochs, settings.pruner.reduction_factor)


class Hyperband(HyperbandPruner):
    """Without the trials that another one goes on with: Optuna would let both of them compete."""

    def _get_bracket_id(self, study: Study, trial: FrozenTrial) -> int:
        return -1 if trial.state == TrialState.FAIL else super()._get_bracket_id(study, trial)


class SeededByTrial(BaseSampler):
    """Another sampler, made anew for every trial."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed, self._of_trial = make, seed, make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of_trial = self._make((self._seed * 1_000_003 + trial.number) % 2**31)
        self._of_trial.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of_trial.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of_trial.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._of_trial.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._of_trial.after_trial(study, trial, state, values)


class CmaSampler(BaseSampler):
    """CMA-ES over the finished trials, a generation after the other in the order in which they finished.

    Optuna's own keeps its state pickled in the storage, and reading that would run whatever is in there; here the state
    follows from the trials. Choices, and all values before the first finished trial, are drawn at random.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._random = seed, RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        space = intersection_search_space(finished)
        return {name: one for name, one in space.items() if isinstance(one, Number) and not one.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        space = {name: one for name, one in search_space.items() if isinstance(one, Number)}
        if len(space) < 2:  # CMA-ES has no covariances to adapt
            return {}
        size = len(space)
        cma = CMA(np.full(size, 0.5), 1 / 6, bounds=np.array([[0.0, 1.0]] * size), seed=self._seed)
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        finished.sort(key=lambda t: (t.datetime_complete, t.number))
        points = [(_to_unit(t.params, space), -float(t.value or 0.0)) for t in finished]
        for start in range(0, len(points) - cma.population_size + 1, cma.population_size):
            cma.tell(points[start : start + cma.population_size])
        return _from_unit(cma.ask(), space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        return self._random.sample_independent(study, trial, name, distribution)


def _edges(one: Number) -> tuple[float, float]:
    """Ends of the line that stands for a distribution; a whole number is half a unit wide to either side."""
    half = 0.5 if isinstance(one, IntDistribution) else 0.0
    low, high = one.low - half, one.high + half
    return (math.log(low), math.log(high)) if one.log else (low, high)


def _to_unit(values: dict[str, Any], space: dict[str, Number]) -> NDArray[np.float64]:
    point = []
    for name, one in space.items():
        low, high = _edges(one)
        value = math.log(values[name]) if one.log else values[name]
        point.append((value - low) / (high - low))
    return np.array(point)


def _from_unit(point: NDArray[np.float64], space: dict[str, Number]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for share, (name, one) in zip(point.tolist(), space.items(), strict=True):
        low, high = _edges(one)
        value = math.exp(low + share * (high - low)) if one.log else low + share * (high - low)
        value = min(max(value, one.low), one.high)
        values[name] = round(value) if isinstance(one, IntDistribution) else value
    return values
