"""Opens the trackers that a run's settings ask for."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from typing import Any

from tqdm import tqdm

from trainer.checkpoint import Progress
from trainer.config import Config
from trainer.errors import BadInput
from trainer.run_folder import RunFolder
from trainer.tracking import Dispensable, MetricsLog, Tracker, Trackers


def check_trackers(config: Config) -> None:
    """Raises BadInput where a tracker is asked for whose package is not installed."""
    for section, package, asked in (
        ("wandb", "wandb", config.wandb.enable),
        ("tensorboard", "tensorboardX", config.tensorboard.enable),
    ):
        if asked and not is_installed(package):
            raise BadInput(f"{section}.enable needs {package}: pip install 'hoser-distill[{section}]'")


def is_installed(package: str) -> bool:
    """A folder `wandb` that an earlier run left beside the user would pass for a package, but has no origin."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def open_trackers(config: Config, folder: RunFolder, progress: Progress) -> Trackers:
    """For the first rank. Gives the run its id at W&B."""
    each: list[Tracker] = [MetricsLog(folder.metrics, progress.step, progress.epoch)]
    if config.tensorboard.enable:
        each.append(Dispensable("TensorBoard", lambda: _tensorboard(folder, progress), say))
    if config.wandb.enable:
        progress.wandb_id = progress.wandb_id or uuid.uuid4().hex[:8]
        each.append(Dispensable("W&B", lambda: _wandb(config, folder, progress), say))
    return Trackers(each)


def _tensorboard(folder: RunFolder, progress: Progress) -> Tracker:
    from trainer.tensorboard_log import TensorBoardLog

    return TensorBoardLog(folder.root / "tensorboard", progress.step)


def _wandb(config: Config, folder: RunFolder, progress: Progress) -> Tracker:
    from trainer.wandb_run import WandbRun

    return WandbRun(config.wandb, folder.root, progress.wandb_id, wandb_config(config, folder), say)


def wandb_config(config: Config, folder: RunFolder) -> dict[str, Any]:
    """What W&B is told of a run: its settings, and under `run` what it was made from."""
    about = {name: value for name, value in folder.saved().items() if name != "config"}
    return config.plain() | {"run": about}


def say(text: str) -> None:
    """On the terminal, above a progress line."""
    tqdm.write(f"trainer: {text}", file=sys.stderr)
