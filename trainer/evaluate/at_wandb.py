"""An evaluation at Weights & Biases: in the run there that training made, or in one of its own where it made none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint import Progress, read_progress
from trainer.config import Config
from trainer.config_file import load_config
from trainer.errors import BadInput
from trainer.generate.reading import about
from trainer.run_folder import RunFolder
from trainer.trackers import is_installed, say, wandb_config

PERFORMANCE = ("total_time_", "forward_time_", "forward_count_", "throughput_")  # how names of generating begin


@dataclass(frozen=True)
class AtWandb:
    """Where the figures of a run's evaluation go."""

    folder: RunFolder
    config: Config
    artifact: bool  # whether the files are sent as well

    @classmethod
    def asked_for(cls, folder: RunFolder, enable: bool | None, artifact: bool) -> AtWandb | None:
        """`enable`: what is said on the command line; None: as the run's settings say. Raises BadInput."""
        config = load_config(folder.config)
        if not (config.wandb.enable if enable is None else enable):
            if artifact:
                raise BadInput("--wandb-artifact needs --wandb, or a run that was trained with wandb.enable")
            return None
        if not is_installed("wandb"):
            raise BadInput("W&B needs wandb: pip install 'hoser-distill[wandb]', or give --no-wandb")
        return cls(folder, config, artifact)

    def log(self, figures: dict[str, Any], file: Path, generated: Path | None) -> None:
        """Figures that were written to `file`, of the trips of `generated`. W&B that fails is a warning only."""
        try:
            self._log(figures, file, generated)
        except Exception as error:  # whatever other people's code raises
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            say(f"warning: W&B failed ({reason}); the figures are in {file}")

    def _log(self, figures: dict[str, Any], file: Path, generated: Path | None) -> None:
        from trainer.wandb_run import WandbRun

        last, kind = self.folder.last, prefix(figures)
        progress = read_progress(last) if last.exists() else Progress()
        run_id = progress.wandb_id or figures["model_digest"][:8]  # another evaluation finds it again
        told = wandb_config(self.config, self.folder) | {f"{kind}evaluation": facts(figures)}
        run = WandbRun(self.config.wandb, self.folder.root, run_id, told, say)
        try:
            made = about(generated) if generated else {}
            run.write(progress.step + 1, numbers(figures, made))
            if self.artifact:
                run.keep(f"{kind.replace('/', '-')}evaluation-{run_id}", "evaluation", files_of(file, generated))
        finally:
            run.close()


def files_of(file: Path, generated: Path | None) -> list[Path]:
    """An evaluation's own files, and those of the trips that it judged."""
    of_trips = [file.with_suffix(".npz"), generated, generated.with_suffix(".json")] if generated else []
    return [each for each in (file, *of_trips) if each.exists()]


def prefix(figures: dict[str, Any]) -> str:
    """Figures of the student alone on the test trips have the research code's names; others never take their place."""
    split = "" if figures["split"] == "test" else f"{figures['split']}/"
    return split + ("fused/" if "fuse_teacher" in figures else "")


def numbers(figures: dict[str, Any], made: dict[str, Any]) -> dict[str, float]:
    """Figures that are known, by name, and how fast the trips were `made`."""
    speed = {name: value for name, value in made.items() if name.startswith(PERFORMANCE)}
    return {prefix(figures) + name: value for name, value in (figures | speed).items() if _is_number(value)}


def facts(figures: dict[str, Any]) -> dict[str, Any]:
    """What the figures are about: digests, versions, names."""
    return {name: value for name, value in figures.items() if isinstance(value, str)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
