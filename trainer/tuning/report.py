"""What a study found: `best.yaml` for `trainer train --config`, `summary.json`, and a table of both arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
import yaml
from optuna import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from trainer.config import Config
from trainer.config_file import with_values
from trainer.errors import TrainingFailed
from trainer.files import write_text
from trainer.provenance import program
from trainer.tuning.finals import FIGURES, RESULT, TUNED, VANILLA, Final
from trainer.tuning.space import base_config
from trainer.tuning.trials import DIVERGED, shown

Row = dict[str, Any]


def best_trial(study: Study) -> FrozenTrial:
    """The finished trial with the highest value, the first of equals. Raises TrainingFailed when there is none."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not finished:
        counts = ", ".join(f"{count} {what}" for what, count in outcomes(study).items())
        raise TrainingFailed(f"no trial of the study was trained to its end ({counts}); nothing to choose")
    return max(finished, key=lambda one: (one.value, -one.number))


def outcomes(study: Study) -> dict[str, int]:
    """How the trials ended. Those that another one goes on with are `given back`."""
    names = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "ended early",
        TrialState.FAIL: "given back",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }
    trials = study.get_trials(deepcopy=False)
    return dict(Counter("diverged" if DIVERGED in one.user_attrs else names[one.state] for one in trials))


def write_best(file: Path, config: Config, best: FrozenTrial) -> None:
    """The settings of the best trial, with the epochs of a final run. Raises CannotWrite."""
    found = with_values(base_config(config, config.optuna.final_run.max_epochs), best.params, "best trial")
    plain = {name: value for name, value in found.plain().items() if name != "optuna"}
    plain["road_network_encoder_config"].pop("intersection_emb_dim")  # has no effect here
    said = f"# Trial {best.number} of a study of `trainer tune`: validation accuracy {best.value:.4f}\n"
    write_text(file, said + yaml.safe_dump(plain, sort_keys=False))


def summary(study: Study, results: Iterable[tuple[Final, FrozenTrial]], best: FrozenTrial) -> dict[str, Any]:
    """All that is known of a study."""
    arms: dict[str, list[Row]] = {}
    for final, trial in results:
        place = {"seed": final.seed, "run": f"{final.kind}/{trial.number}", "validation_accuracy": trial.value}
        arms.setdefault(final.arm, []).append(place | trial.user_attrs[RESULT])
    return {
        "trials": outcomes(study),
        "best": {
            "trial": best.number,
            "run": f"trials/{best.number}",
            "validation_accuracy": best.value,
            "values": best.params,
        },
        "arms": {arm: {"runs": rows} | _spread(rows) for arm, rows in arms.items()},
        "difference": _difference(arms),
        "origin": study.user_attrs.get("origin"),
        **program(),
        "torch": torch.__version__,
    }


def _spread(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation (of a sample; none of a single run) over seeds."""
    columns = {name: [row[name] for row in rows if row[name] is not None] for name in FIGURES}
    return {
        "mean": {name: fmean(values) if values else None for name, values in columns.items()},
        "spread": {name: stdev(values) if len(values) > 1 else None for name, values in columns.items()},
    }


def _difference(arms: Mapping[str, Sequence[Row]]) -> dict[str, Any] | None:
    """Tuned minus vanilla, seed by seed, over the seeds that both arms have."""
    mine, theirs = ({row["seed"]: row for row in arms.get(name, ())} for name in (TUNED, VANILLA))
    seeds = [seed for seed in mine if seed in theirs]
    if not seeds:
        return None
    rows = [{name: _minus(mine[seed][name], theirs[seed][name]) for name in FIGURES} for seed in seeds]
    return {"seeds": seeds} | _spread(rows)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _table(found: Mapping[str, Any]) -> Table:
    """Mean and spread of every arm on the test trips."""
    columns = {f"{arm} ({len(about['runs'])})": about for arm, about in found["arms"].items()}
    if found["difference"]:
        columns["tuned - vanilla"] = found["difference"]
    shown = Table(title="Final runs on the test trips: mean ± standard deviation over seeds")
    shown.add_column("figure")
    for name in columns:
        shown.add_column(name, justify="right")
    for figure in FIGURES:
        shown.add_row(figure, *(_cell(about["mean"][figure], about["spread"][figure]) for about in columns.values()))
    return shown


def _cell(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def show(out: Path, found: Mapping[str, Any]) -> None:
    """A study in a line, and its final runs as a table."""
    best = found["best"]
    ended = ", ".join(f"{count} {what}" for what, count in found["trials"].items())
    print(
        f"{out}: trials: {ended}; best: {best['trial']}, validation accuracy {best['validation_accuracy']:.4f} with "
        f"{shown(best['values'])}; {out / 'best.yaml'} is for trainer train --config, pictures are in {out / 'plots'}"
    )
    if found["arms"]:
        Console().print(_table(found))
