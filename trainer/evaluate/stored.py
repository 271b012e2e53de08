"""What an evaluation leaves: FILE.json with all figures, and FILE.npz beside it with an entry for every trip."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import files
from trainer.errors import BadInput
from trainer.evaluate.shape import check_figures
from trainer.files import digest_of, whole_file, write_json

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Evaluation:
    """As read back."""

    file: Path
    figures: dict[str, Any]
    trips: Arrays  # empty where no generated trips were judged


def check_target(file: Path, kept: Iterable[Path]) -> None:
    """Raises BadInput for a JSON that could not be written at the end of long work, or would replace a kept file."""
    if file.suffix != ".json":
        raise BadInput(f"{file}: an evaluation's name must end in .json; name another --out")
    files.check_target(file)
    lost = {path.resolve() for path in kept} & {file.resolve(), file.with_suffix(".npz").resolve()}
    if lost:
        raise BadInput(f"{file}: would replace {min(lost).name}, an input or a part of the run; name another --out")


def write_evaluation(file: Path, figures: dict[str, Any], trips: Arrays) -> None:
    """Each file whole or not at all; the JSON, which has the other's digest, comes last. Raises CannotWrite."""
    beside = file.with_suffix(".npz")
    if trips:
        with whole_file(beside) as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, **trips)  # type: ignore[arg-type]
        figures = figures | {"trips_digest": digest_of(beside)}
    write_json(file, figures)
    if not trips:
        beside.unlink(missing_ok=True)  # an earlier evaluation's, which this JSON does not tell of


def read_evaluation(file: Path) -> Evaluation:
    """Raises BadInput where files are missing, broken, malformed or do not belong together."""
    try:
        figures = json.loads(file.read_text())
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); trainer evaluate writes it") from None
    except (ValueError, RecursionError):
        figures = None
    if not isinstance(figures, dict):
        raise BadInput(f"{file}: is not what trainer evaluate writes")
    check_figures(file, figures)
    digest = figures.get("trips_digest")
    return Evaluation(file, figures, _arrays(file, digest) if digest else {})


def _arrays(file: Path, digest: str) -> Arrays:
    beside = file.with_suffix(".npz")
    try:
        if digest_of(beside) != digest:
            raise BadInput(f"{beside}: is not the file that belongs to {file.name}; run trainer evaluate again")
        with np.load(beside, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"{beside}: cannot be read ({error}); run trainer evaluate again") from None
