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

    An older folder at that place is moved aside first, then removed. Raises BadSettings, which names the folder.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            fresh.chmod(0o755)
            yield fresh
            _flush(*fresh.rglob("*"), fresh)
            old = Path(f"{fresh}.old")
            if folder.exists():
                os.rename(folder, old)
            os.rename(fresh, folder)
            _flush(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise BadSettings(f"{folder}: cannot be written ({reason(error)}): make room or choose another place") from None


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
