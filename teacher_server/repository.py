"""Which folders hold the teachers that a server was told to serve."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from teacher_server.artifact import DESCRIPTION, WEIGHTS
from teacher_server.errors import BadSettings
from teacher_server.settings import MODEL_NAME
from teacher_server.watched import Stamp, stamp_of

DEFAULT_NAME = "teacher"


@dataclass(frozen=True)
class Found:
    """A folder with a teacher's files. Equal as long as the files are the same."""

    name: str
    folder: Path
    stamp: Stamp
    fault: str = ""  # why it cannot be served under this name


class Repository:
    """Folders of teachers, and folders of such folders, which may change at any time."""

    def __init__(self, paths: Sequence[Path], model_name: str | None = None) -> None:
        """`model_name` is for a single teacher; several are called by their folders' names. Raises BadSettings."""
        self._paths = tuple(paths)
        self._shelves = {path for path in paths if _is_shelf(path)}
        self._model_name = model_name or DEFAULT_NAME
        if model_name and not self.single:
            raise BadSettings("--model-name is for one teacher; several are called by their folders' names")

    @property
    def single(self) -> bool:
        """Whether there is one teacher and will never be another."""
        return len(self._paths) == 1 and not self._shelves

    @property
    def watched(self) -> bool:
        """Whether teachers may come and go."""
        return bool(self._shelves)

    def scan(self) -> dict[str, Found]:
        """What is there now, by name. Raises OSError when a folder of folders cannot be read."""
        if self.single:
            return {self._model_name: Found(self._model_name, self._paths[0], ())}
        found: dict[str, Found] = {}
        for folder in self._folders():
            name, stamp, fault = folder.name, stamp_of(_files(folder)), ""
            if not re.fullmatch(MODEL_NAME, name):
                fault = f"{_shown(folder)}: a model's name has letters, digits and ._- only: rename the folder"
            elif name in found:
                other = _shown(found[name].folder)
                fault = f"{_shown(folder)}: {other} has the same name: rename one of the folders"
            known_as = _shown(folder) if fault else name
            found.setdefault(known_as, Found(known_as, folder, stamp, fault))
        return found

    def _folders(self) -> Iterator[Path]:
        for path in self._paths:
            if path not in self._shelves:
                yield path.resolve()
                continue
            for folder in sorted(path.iterdir()):
                if not folder.name.startswith(".") and _holds_teacher(folder):
                    yield folder


def _is_shelf(path: Path) -> bool:
    """Whether a folder holds folders of teachers. Of what cannot be read the loading says so."""
    try:
        return path.is_dir() and not _holds_teacher(path) and any(map(_holds_teacher, path.iterdir()))
    except OSError:
        return False


def _shown(folder: Path) -> str:
    """A name may have any bytes; those that are no UTF-8 are shown as escapes, for no door could send them."""
    return os.fsencode(folder).decode("utf-8", "backslashreplace")


def _holds_teacher(folder: Path) -> bool:
    return any(file.exists() for file in _files(folder))


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / DESCRIPTION, folder / WEIGHTS
