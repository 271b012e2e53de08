"""What a study varies: configuration keys, each with the values that it may take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from trainer.config import Config
from trainer.config_file import with_values
from trainer.errors import BadInput
from trainer.teacher.address import NONE, UNIFORM
from trainer.tuning.settings import Range, WindowRange

Value = bool | int | float | str
WHERE = "optuna.search_space"
MAX_EPOCH = "optimizer_config.max_epoch"
OWN_KEYS = {"distill.lambda": "lambda_min", "distill.temperature": "temp_min", "distill.window": "window"}
# Keys that say who teaches, how much is trained and how it is run, not what: the same for all trials.
FIXED = ("data_dir", "optuna", "wandb", "tensorboard", "profiling", "dataloader", "training", MAX_EPOCH)
FIXED_OF_DISTILL = (
    "enable",
    "teacher",
    "deadline_s",
    "prefetch",
    "on_teacher_loss",
    "wait_limit_s",
    "keep_labels",
    "teacher_digest",
)


@dataclass(frozen=True)
class Dimension:
    """One key, and its range or its choices."""

    key: str
    low: int | float = 0
    high: int | float = 0
    log: bool = False
    choices: Sequence[Value] | None = None

    def suggest(self, trial: optuna.Trial) -> Value:
        """The trial's value."""
        if self.choices is not None:
            chosen: Any = trial.suggest_categorical(self.key, list(self.choices))
            return chosen
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    @property
    def extremes(self) -> Sequence[Value]:
        """Values that must be allowed if all are."""
        return (self.low, self.high) if self.choices is None else self.choices


def search_space(config: Config, address: str) -> list[Dimension]:
    """What a study with this teacher varies. Raises BadInput for ranges that cannot be, or when nothing varies."""
    space = config.optuna.search_space
    found = [_of_range(key, wanted) for key, wanted in space.ranges.items()]
    if address != NONE:
        found += [
            Dimension("distill.lambda", float(space.lambda_min), float(space.lambda_max), space.lambda_log),
            Dimension("distill.temperature", float(space.temp_min), float(space.temp_max)),
        ]
        if isinstance(space.window, WindowRange) and address != UNIFORM:
            found.append(Dimension("distill.window", space.window.min, space.window.max))
    if not found:
        raise BadInput(f"nothing to tune: without a teacher, {WHERE}.ranges must name the keys to vary")
    for dimension in found:
        for value in dimension.extremes:
            with_values(config, {dimension.key: value}, WHERE)
    return found


def _of_range(key: str, wanted: Range) -> Dimension:
    section, _, name = key.partition(".")
    if key in OWN_KEYS:
        raise BadInput(f"{WHERE}.ranges: {key} has keys of its own ({WHERE}.{OWN_KEYS[key]}, ...)")
    if section in FIXED or key in FIXED or (section == "distill" and name in FIXED_OF_DISTILL):
        raise BadInput(f"{WHERE}.ranges: {key} is the same for all trials of a study")
    if wanted.choices is not None:
        return Dimension(key, choices=wanted.choices)
    assert wanted.min is not None
    assert wanted.max is not None
    return Dimension(key, wanted.min, wanted.max, wanted.log)


def base_config(config: Config, epochs: int) -> Config:
    """The configuration that a study's runs start from: with the fixed window, if one is given."""
    window = config.optuna.search_space.window
    fixed = {} if isinstance(window, WindowRange) else {"distill.window": window}
    return with_values(config, {MAX_EPOCH: epochs, **fixed}, WHERE)


def windows_of(space: Iterable[Dimension]) -> list[int]:
    """The windows that trials may ask for, the longest first; none where it does not vary."""
    found = [dimension for dimension in space if dimension.key == "distill.window"]
    return [window for one in found for window in range(int(one.high), int(one.low) - 1, -1)]
