"""Pictures of a study as HTML pages, which need no network: plotly's script lies beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna import Study, visualization
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from trainer.files import write_text

PLOTS: dict[str, Callable[[Study], Any]] = {
    "history": visualization.plot_optimization_history,
    "epochs": visualization.plot_intermediate_values,
    "values": visualization.plot_slice,
    "importance": visualization.plot_param_importances,
}
FEWEST = 3  # finished trials that say something about importance


def write_plots(study: Study, folder: Path) -> list[Path]:
    """Writes the pictures; returns the files. Raises CannotWrite."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    folder.mkdir(exist_ok=True)
    write_text(folder / "plotly.min.js", get_plotlyjs())
    files = []
    for name, plot in PLOTS.items():
        if name == "importance" and (len(finished) < FEWEST or len({trial.value for trial in finished}) < 2):
            continue
        file = folder / f"{name}.html"
        write_text(file, plot(study).to_html(include_plotlyjs="plotly.min.js"))
        files.append(file)
    return files
