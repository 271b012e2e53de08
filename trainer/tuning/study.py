"""A whole study, top down: trials, the best of them, final runs, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from trainer.commands.train import lasting
from trainer.config import Config
from trainer.config_file import with_values
from trainer.errors import CannotWrite
from trainer.files import only_one, write_json
from trainer.guide import token_map
from trainer.teacher.address import NONE
from trainer.tuning.finals import PRETUNE, TUNED, VANILLA, Final, Finals, runs_of
from trainer.tuning.origin import check_origin, study_origin
from trainer.tuning.plots import write_plots
from trainer.tuning.report import best_trial, summary, write_best
from trainer.tuning.settings import Tuning
from trainer.tuning.space import Dimension, base_config, search_space, windows_of
from trainer.tuning.storage import open_storage, open_study
from trainer.tuning.trials import Trials
from trainer.tuning.worker import Phase, work
from trainer.tuning.workshop import Workshop


def conduct(config: Config, workshop: Workshop, url: str, name: str) -> dict[str, Any]:
    """Begins a study, or joins or continues it, to its end; returns `summary.json`.

    Raises Stopped, BadInput for a study of something else, CannotWrite, and what a trial raises.
    """
    try:
        return _conduct(config, workshop, url, name)
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = " ".join(str(getattr(error, "orig", None) or error.__cause__ or error).split())[:160]
        raise CannotWrite(f"{workshop.out}: the study's storage failed ({cause}); the same command goes on") from None


def _conduct(config: Config, workshop: Workshop, url: str, name: str) -> dict[str, Any]:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # errors come to us, and we say how it goes
    settings, out = config.optuna, workshop.out
    space = search_space(config, workshop.address)
    guide_name = _checked_teacher(config, space, workshop)
    storage = open_storage(url, settings)
    trials = open_study(storage, name, settings)
    check_origin(trials, study_origin(config, lasting(config), workshop.city.meta.fingerprint, guide_name), str(out))
    finished = partial(_finished, name=name, storage=storage, settings=settings, workshop=workshop)

    before = finished(runs_of(PRETUNE, settings.vanilla_baseline_pretune, config, {}))
    _work(Trials(trials, workshop, base_config(config, settings.max_epochs), space), settings, workshop)
    best = best_trial(trials)
    with only_one(out / "report.lock"):  # workers that share a folder end at the same moment
        write_best(out / "best.yaml", config, best)
        write_plots(trials, out / "plots")
    wanted = runs_of(TUNED, settings.final_run, config, best.params)
    if workshop.address != NONE:
        wanted += runs_of(VANILLA, settings.vanilla_baseline, config, best.params)
    found = summary(trials, [*before, *finished(wanted)], best)
    with only_one(out / "report.lock"):
        write_json(out / "summary.json", found)
    return found


def _finished(
    wanted: Sequence[Final], name: str, storage: RDBStorage, settings: Tuning, workshop: Workshop
) -> list[tuple[Final, FrozenTrial]]:
    """Final runs, when all are done. Each kind has trials of its own, which a worker at another kind leaves alone."""
    if not wanted:
        return []
    finals = Finals(open_study(storage, f"{name} {wanted[0].kind}", settings), workshop, wanted)
    while finals.enqueue():
        _work(finals, settings, workshop)
    return list(finals.results())


def _work(phase: Phase, settings: Tuning, workshop: Workshop) -> None:
    work(phase, 3 * settings.heartbeat_s, workshop.should_stop, workshop.say)


def _checked_teacher(config: Config, space: Sequence[Dimension], workshop: Workshop) -> str:
    """The teacher's name, before anything is begun, if it fits all windows. Raises TeacherMismatch or BadInput."""
    fixed = base_config(config, 1)
    windows: list[int | str] = [*windows_of(space)] or [fixed.distill.window]
    asked = [with_values(fixed, {"distill.window": window}, "optuna.search_space.window") for window in windows]
    if workshop.teacher:
        token_map(workshop.teacher.description, asked[0], workshop.city)
        return workshop.teacher.description.digest
    names = [workshop.guide(each, taught=True).name for each in asked]
    return names[0]
