"""Make a teacher artifact from what training left: a run of `teacher fit`, or a file made elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from teacher_server import __version__
from teacher_server.artifact import TeacherDescription, write_artifact
from teacher_server.errors import BadArtifact, BadSettings
from teacher_server.fit.run import FitRun
from teacher_server.foreign.checkpoint import ForeignTeacher, read_foreign
from teacher_server.vocabulary import Grid, SpecialTokens


def export_run(folder: Path, out: Path, overwrite: bool = False) -> TeacherDescription:
    """The best weights of a fit. Raises BadSettings for a folder that is no run, BadArtifact for bad weights."""
    run = FitRun(folder)
    config = run.config()
    provenance = {
        **_origin("teacher fit", folder),
        "data_fingerprint": config.data_fingerprint,
        "seed": config.settings.seed,
        "fit": run.summary() or "not complete",
    }
    try:
        return write_artifact(out, run.load_best(), config.model, config.special, config.grid, provenance, overwrite)
    except BadArtifact as error:
        raise BadArtifact(f"{folder}: {error}") from None


def export_foreign(path: Path, grid: Grid, out: Path, overwrite: bool = False) -> TeacherDescription:
    """A weights-only `.pt` or an original checkpoint, with the grid that it was trained on.

    Raises BadArtifact for a file that is no teacher, BadSettings where the grid is not the one the file knows of.
    """
    teacher = read_foreign(path)
    _check_grid(path, teacher, grid)
    provenance = {**_origin(teacher.kind, path), "iteration": teacher.iteration}
    special = SpecialTokens.after(grid.cells)
    return write_artifact(out, teacher.state_dict, teacher.model, special, grid, provenance, overwrite)


def _check_grid(path: Path, teacher: ForeignTeacher, grid: Grid) -> None:
    shape = (grid.rows, grid.columns)
    if teacher.grid_shape not in (None, shape):
        raise BadSettings(
            f"{path}: dataset_config.grip_size says {teacher.grid_shape[0]} x {teacher.grid_shape[1]} cells, but the "
            f"given grid has {shape[0]} x {shape[1]}"
        )
    if teacher.model.vocab_size != grid.cells + 3:
        raise BadSettings(
            f"{path}: the vocabulary of {teacher.model.vocab_size} tokens is not that of the given grid of "
            f"{shape[0]} x {shape[1]} cells, {grid.cells + 3} with PAD, EOT and SOT"
        )
    if teacher.pad_token not in (None, grid.cells):
        raise BadSettings(
            f"{path}: model_config.pad_token is {teacher.pad_token}, but PAD must be the first token behind the "
            f"cells, {grid.cells}"
        )


def _origin(source: str, path: Path) -> dict[str, str]:
    return {
        "source": source,
        "path": str(path),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "exported_by": f"hoser-distill {__version__}",
    }
