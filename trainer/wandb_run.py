"""Figures for Weights & Biases: one run there for a run here, however often it is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import wandb

from trainer.config import Wandb

PROJECT = "hoser-distill"
START_S = 30.0  # how long W&B may take to begin a run
FINISH_S = 60.0  # how long the last figures may take to arrive; they are on disk anyway
FLUSH = "x_transaction_log_flush_interval"  # seconds that a killed run loses; W&B may rename it one day


class WandbRun:
    """Offline, or where the service does not answer, all is kept in `RUN/wandb`; `wandb sync` sends it."""

    def __init__(
        self, settings: Wandb, folder: Path, run_id: str, config: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        """Begins or goes on with the run of this id."""
        self._settings, self._folder, self._id, self._config = settings, folder, run_id, config
        try:
            self._run = self._begin(settings.mode)
        except Exception as error:  # no key, no network, no such project: the figures are worth keeping
            reason = " ".join(str(error).split())[:200]
            say(f"warning: W&B cannot be reached ({reason}); figures are kept in {folder / 'wandb'} for `wandb sync`")
            self._run = self._begin("offline")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        # The service takes nothing more for steps that it has; what a resumed run repeats lands on the next one.
        with _given_up_on_failure():
            self._run.log(dict(values), step=max(step, self._run.starting_step))

    def keep(self, name: str, kind: str, files: Iterable[Path]) -> None:
        """An artifact of this run with copies of the files, under their names."""
        with _given_up_on_failure():
            artifact = wandb.Artifact(name, kind)
            for file in files:
                artifact.add_file(str(file))
            self._run.log_artifact(artifact)

    def close(self) -> None:
        try:
            self._run.finish()
        finally:
            _end_service()

    def _begin(self, mode: Any) -> wandb.Run:
        """`mode` None: as WANDB_MODE says, online without it."""
        settings = self._settings
        with _given_up_on_failure():
            wandb.setup(wandb.Settings(silent=True))
            return wandb.init(
                project=settings.project or PROJECT,
                name=settings.run_name or self._folder.resolve().name,
                tags=settings.tags,
                config=dict(self._config),
                id=self._id,
                resume="allow",
                allow_val_change=True,
                dir=str(self._folder),
                mode=mode,
                settings=_settings(),
            )


def _settings() -> wandb.Settings:
    """W&B keeps off the terminal, and waits for no network longer than it must."""
    flush: dict[str, Any] = {FLUSH: 1.0} if FLUSH in wandb.Settings.model_fields else {}
    return wandb.Settings(console="off", silent=True, init_timeout=START_S, finish_timeout=FINISH_S, **flush)


@contextmanager
def _given_up_on_failure() -> Iterator[None]:
    """Ends W&B's own process with a failure; its hook at the end of this one would only complain."""
    try:
        yield
    except Exception:
        _end_service()
        raise


def _end_service() -> None:
    with suppress(Exception, SystemExit):
        wandb.teardown()
