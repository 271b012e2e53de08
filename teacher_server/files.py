"""Files that appear whole or not at all."""

from __future__ import annotations

import os
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
