"""The trials of a study: one short run for every set of values that the sampler suggests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna import Study, Trial, TrialPruned
from optuna.trial import FrozenTrial, TrialState

from trainer.config import Config
from trainer.config_file import with_values
from trainer.errors import Diverged
from trainer.teacher.address import NONE
from trainer.tuning.space import Dimension
from trainer.tuning.workshop import Workshop

DIVERGED = "diverged"
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@dataclass
class Trials:
    """As many trials as the settings ask for; a trial's value is its best accuracy on the validation trips."""

    study: Study
    workshop: Workshop
    config: Config  # with the epochs of a trial
    space: Sequence[Dimension]

    def open(self) -> bool:
        counted = self.study.get_trials(deepcopy=False, states=COUNTED)
        return len(counted) < self.config.optuna.n_trials

    def surplus(self, trial: FrozenTrial) -> bool:
        """Two workers may begin the last trial at the same moment; the first of all that have not failed count."""
        others = self.study.get_trials(deepcopy=False)
        before = [one for one in others if one.number < trial.number and one.state != TrialState.FAIL]
        return len(before) >= self.config.optuna.n_trials

    def run(self, trial: Trial) -> float:
        values = {dimension.key: dimension.suggest(trial) for dimension in self.space}
        config = with_values(self.config, values, f"trial {trial.number}")
        self.workshop.say(f"trial {trial.number}: {shown(values)}")
        folder = self.workshop.begin("trials", trial)
        epochs = config.optimizer_config.max_epoch

        def on_epoch(done: int, accuracy: float) -> None:
            trial.report(accuracy, done)
            if done < epochs and trial.should_prune():
                self.workshop.say(f"trial {trial.number}: ended after {done} of {epochs} epochs, others do better")
                raise TrialPruned

        try:
            trainer, _ = self.workshop.train(config, folder, self.workshop.address != NONE, on_epoch)
        except Diverged as error:
            self.workshop.say(f"trial {trial.number}: {error}")
            trial.set_user_attr(DIVERGED, str(error))
            raise TrialPruned from None
        return trainer.progress.best


def shown(values: Mapping[str, object]) -> str:
    """Values in a line."""
    texts = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items())
