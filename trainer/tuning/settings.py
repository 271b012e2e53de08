"""The section `optuna` of the configuration: what `trainer tune` searches, and how.

Keys are those of the research code and so are the defaults, but for the sampler; `pruner_type`, `startup_trials`,
`heartbeat_s` and `search_space.ranges` are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.section import Positive, Section

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Temperature = Annotated[float, Field(gt=0, le=1000)]
Weight = Annotated[float, Field(gt=0, le=1e6)]


class Pruner(Section):
    """Hyperband's: a trial may be ended after `min_resource` epochs, and after `reduction_factor` times as many."""

    min_resource: Positive = 5
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class Sampler(Section):
    """How values are chosen."""

    sampler_type: Literal["tpe", "cmaes", "random"] = "tpe"
    seed: Seed = 42


class WindowRange(Section):
    """Tokens of the history, both ends included."""

    min: Positive
    max: Positive

    @model_validator(mode="after")
    def _ordered(self) -> WindowRange:
        if self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class Range(Section):
    """The values of any configuration key: min to max (whole numbers where both are), or one of several."""

    min: int | float | None = None
    max: int | float | None = None
    log: bool = False
    choices: Annotated[list[bool | int | float | str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        if (self.choices is None) == (self.min is None) or (self.min is None) != (self.max is None):
            raise ValueError("must have min and max, or choices")
        if self.choices is None and self.min > self.max:  # type: ignore[operator]
            raise ValueError("min is greater than max")
        if self.log and (self.choices is not None or self.min <= 0):  # type: ignore[operator]
            raise ValueError("log needs min and max above 0")
        return self


class SearchSpace(Section):
    """Where the best settings are looked for."""

    lambda_min: Weight = 0.001
    lambda_max: Weight = 0.1
    lambda_log: bool = True
    temp_min: Temperature = 1.0
    temp_max: Temperature = 5.0
    window: Positive | Literal["full"] | WindowRange = WindowRange(min=2, max=8)
    ranges: dict[str, Range] = Field(default_factory=dict)  # by key, as in --set: optimizer_config.learning_rate

    @model_validator(mode="after")
    def _ordered(self) -> SearchSpace:
        for name in ("lambda", "temp"):
            if getattr(self, f"{name}_min") > getattr(self, f"{name}_max"):
                raise ValueError(f"{name}_min is greater than {name}_max")
        return self


class Arm(Section):
    """Runs of one set of settings, one a seed."""

    enabled: bool = True
    max_epochs: Positive = 25
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default_factory=lambda: [42, 43, 44])


class Tuning(Section):
    """A study: trials that look for the best settings, then final runs with them."""

    n_trials: Positive = 12
    max_epochs: Positive = 8  # of a trial
    pruner_type: Literal["hyperband", "none"] = "hyperband"
    pruner: Pruner = Pruner()
    sampler: Sampler = Sampler()
    startup_trials: Positive = 5  # chosen at random before TPE has something to go by
    heartbeat_s: Positive = 20  # a worker that is silent for three of them is dead
    search_space: SearchSpace = SearchSpace()
    vanilla_baseline_pretune: Arm = Arm(enabled=False, max_epochs=8, seeds=[42])  # before the trials
    final_run: Arm = Arm()
    vanilla_baseline: Arm = Arm()  # the same settings without a teacher
