"""Where a study's trials are kept: a SQLite file in its folder, or any database for workers on many machines."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from trainer.errors import BadInput
from trainer.tuning.sampler import make_pruner, make_sampler
from trainer.tuning.settings import Tuning
from trainer.tuning.worker import give_back

ATTEMPTS = 5  # two workers that make the same tables at the same moment get in each other's way once
LOCK_PATIENCE_S = 60  # of a worker that finds SQLite's file locked


def sqlite_url(file: Path) -> str:
    return f"sqlite:///{file.resolve()}"


def open_storage(url: str, settings: Tuning) -> RDBStorage:
    """Raises BadInput, which never shows the password in a URL."""
    arguments = {"connect_args": {"timeout": LOCK_PATIENCE_S}} if url.startswith("sqlite:") else {}
    for attempt in range(ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs=arguments,
                    heartbeat_interval=settings.heartbeat_s,
                    grace_period=3 * settings.heartbeat_s,
                    heartbeat_stale_trial_callback=give_back,
                )
        except ImportError as error:
            raise BadInput(f"--storage {_shown(url)}: needs the Python package {error.name}") from None
        except (SQLAlchemyError, ValueError, RuntimeError) as error:
            if attempt == ATTEMPTS - 1 or not isinstance(error, SQLAlchemyError):
                reason = " ".join(str(getattr(error, "orig", None) or error).split())[:160]
                raise BadInput(f"--storage {_shown(url)}: cannot be used ({reason})") from None
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError


def open_study(storage: BaseStorage, name: str, settings: Tuning) -> optuna.Study:
    """A study that maximises, new or old."""
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=make_sampler(settings),
        pruner=make_pruner(settings),
        direction="maximize",
        load_if_exists=True,
    )


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "(not shown)"
