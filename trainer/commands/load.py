"""What several commands open: the data of a run."""

from __future__ import annotations

from pathlib import Path

from trainer.data.prepare import Prepared, prepare
from trainer.errors import BadInput
from trainer.run_folder import RunFolder


def run_data(folder: RunFolder, data: Path | None, cache: Path | None, skip_bad: bool) -> Prepared:
    """The data folder that is given, or else the one that the run was trained on. Raises BadInput."""
    saved = folder.saved()
    source = data or (Path(saved["data"]) if "data" in saved else None)
    if source is None:
        raise BadInput(f"{folder.root}: does not know its data; give --data FOLDER")
    return prepare(source, cache, skip_bad or bool(saved.get("skip_bad")))
