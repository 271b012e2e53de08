"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from teacher_server.errors import BadSettings

DRAFT = ".partial"


@contextmanager
def whole_file(path: Path, advice: str = "make room or choose another place") -> Iterator[Path]:
    """Gives a path to write to; what is there takes the file's place when the block ends well, and is gone otherwise.

    Raises BadSettings, which names the file and ends in `advice`; the file is then as it was before.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield fresh
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        raise BadSettings(f"{path}: cannot be written ({reason(error)}): {advice}") from None
    finally:
        with suppress(OSError):
            fresh.unlink()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; when the block ends well it takes `folder`'s place, and is gone otherwise.

    An older folder at that place is moved aside first, then removed. An empty one may be the mount point of a volume,
    which nothing can take the place of: it is filled, in the order of names. Every user may read what is written.
    Raises BadSettings, which names the folder.
    """
    fill = folder.is_dir() and is_empty(folder)
    try:
        fresh = _draft(folder, fill)
        try:
            yield fresh
            for path in fresh.rglob("*"):  # safetensors writes for its own user only; a server may be another one
                path.chmod(path.stat().st_mode | 0o444)
            _flush(*fresh.rglob("*"), fresh)
            _place(fresh, folder, fill)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise BadSettings(f"{folder}: cannot be written ({reason(error)}): make room or choose another place") from None


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or only what a process that was killed while it filled the folder has left."""
    return all(path.name == DRAFT for path in folder.iterdir())


def _draft(folder: Path, fill: bool) -> Path:
    if fill:
        shutil.rmtree(folder / DRAFT, ignore_errors=True)
        (folder / DRAFT).mkdir()
        return folder / DRAFT
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    fresh.chmod(0o755)
    return fresh


def _place(fresh: Path, folder: Path, fill: bool) -> None:
    if fill:
        for path in sorted(fresh.iterdir()):
            os.replace(path, folder / path.name)
        _flush(folder)
        return
    old = Path(f"{fresh}.old")
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str, advice: str = "make room or choose another place") -> None:
    """A text file, as `whole_file` writes it."""
    with whole_file(path, advice) as fresh:
        fresh.write_text(text, encoding="utf-8")


def remove_partial(folder: Path) -> None:
    """Remove what processes that were killed in the middle of a file have left in a folder."""
    for leftover in folder.glob(".*.partial"):
        leftover.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """Why a file could not be written, in one line: the system's word for it, where torch hides it, too."""
    behind = error.__context__ if isinstance(error.__context__, OSError) else error
    if isinstance(behind, OSError) and behind.strerror:
        return behind.strerror
    return " ".join(str(behind).split())[:200]
