"""Final runs: the best settings, and the same without a teacher, each with several seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from trainer.commands.train import lasting
from trainer.config import Config
from trainer.config_file import with_values
from trainer.files import write_json
from trainer.summary import summarise
from trainer.tuning.settings import Arm
from trainer.tuning.space import base_config
from trainer.tuning.worker import Surplus
from trainer.tuning.workshop import Workshop

TUNED, VANILLA, PRETUNE = "tuned", "vanilla", "vanilla before tuning"
FIGURES = ("next_step_accuracy", "choice_accuracy", "mape_log1p", "mape_seconds", "loss_next_step", "kl")
RESULT = "result"


@dataclass(frozen=True)
class Final:
    """One run to do."""

    arm: str
    seed: int
    config: Config

    @property
    def kind(self) -> str:
        """Folder of such runs, and name of their Optuna study."""
        return "before" if self.arm == PRETUNE else "finals"

    @property
    def key(self) -> dict[str, Any]:
        """Tells this run from all others of the study, also from those of an earlier best trial."""
        text = json.dumps(lasting(self.config), sort_keys=True)
        return {"arm": self.arm, "seed": self.seed, "config": hashlib.sha256(text.encode()).hexdigest()}


def runs_of(name: str, arm: Arm, config: Config, values: Mapping[str, Any]) -> list[Final]:
    """The runs of an arm, if it is wanted: the configuration with a trial's values; without a teacher only those that
    are not the teacher's.
    """
    if not arm.enabled:
        return []
    chosen = dict(values)
    if name != TUNED:
        chosen = {key: value for key, value in values.items() if not key.startswith("distill.")}
        chosen["distill.enable"] = False
    base = base_config(config, arm.max_epochs)
    seeds = dict.fromkeys(arm.seeds)
    return [Final(name, seed, with_values(base, chosen | {"training.seed": seed}, name)) for seed in seeds]


@dataclass
class Finals:
    """Each wanted run once."""

    study: Study
    workshop: Workshop
    wanted: Sequence[Final]

    def enqueue(self) -> bool:
        """Lets the runs that nobody has done or does wait for a worker; whether any is not done."""
        for final in self.wanted:
            if not any(self._of(final)):
                self.study.enqueue_trial({}, user_attrs=final.key)
        return len(list(self.results())) < len(self.wanted)

    def open(self) -> bool:
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return any(self._final(trial) for trial in waiting)

    def surplus(self, trial: FrozenTrial) -> bool:
        final = self._final(trial)
        return final is None or any(other.number < trial.number for other in self._of(final))

    def run(self, trial: Trial) -> float:
        final = self._final(trial)
        if final is None:
            raise Surplus
        self.workshop.say(f"final run {trial.number}: {final.arm}, seed {final.seed}")
        folder = self.workshop.begin(final.kind, trial)
        trainer, guide = self.workshop.train(final.config, folder, final.arm == TUNED, lambda done, accuracy: None)
        summary = summarise(trainer, guide)
        write_json(folder.summary, summary)
        trial.set_user_attr(RESULT, {name: summary[name] for name in (*FIGURES, "model_digest")})
        return trainer.progress.best

    def results(self) -> Iterator[tuple[Final, FrozenTrial]]:
        """The runs that are done."""
        for final in self.wanted:
            for trial in self._of(final):
                if trial.state == TrialState.COMPLETE:
                    yield final, trial
                    break

    def _of(self, final: Final) -> Iterator[FrozenTrial]:
        """A run's trials that have not failed."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state != TrialState.FAIL and final.key.items() <= trial.user_attrs.items():
                yield trial

    def _final(self, trial: FrozenTrial | Trial) -> Final | None:
        attributes = trial.user_attrs
        return next((final for final in self.wanted if final.key.items() <= attributes.items()), None)
