"""Files: written whole or not at all, and read back."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.errors import BadInput, CannotWrite, TrainerError


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Gives a path to write to; its content takes the file's place when the block ends well, and is gone otherwise.

    Raises CannotWrite. Writers of binary formats report a full disk as RuntimeError or errors of their own, so all
    that a block raises counts as a failure to write, but for errors that are ours.
    """
    partial = file.with_name(f"{file.name}.partial")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except TrainerError:
        partial.unlink(missing_ok=True)
        raise
    except Exception as error:
        partial.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else f"{' '.join(str(error).split())[:120]}: disk full?"
        raise CannotWrite(f"{file}: cannot be written ({reason})") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(file: Path, text: str) -> None:
    """Writes a text file. Raises CannotWrite."""
    with whole_file(file) as partial:
        partial.write_text(text)


def write_json(file: Path, value: Any) -> None:
    """Writes JSON; refuses NaN, which is no JSON. Raises CannotWrite."""
    write_text(file, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_object(file: Path, hint: str = "") -> dict[str, Any]:
    """A JSON object; empty where there is no file. Raises BadInput, with the hint behind what is wrong."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not readable as JSON ({error}){hint}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file}: not a JSON object{hint}")
    return found


def digest_of(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_target(file: Path) -> None:
    """Raises BadInput for a file that could not be written at the end of long work."""
    if file.is_dir() or not file.parent.is_dir():
        raise BadInput(f"{file}: is a folder or lies in none; name another --out")


@contextmanager
def only_one(lock: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One process at a time; the system lets go of the lock when a process dies. Takes the file away at the end.

    `waits` is told when another process holds the lock. Raises OSError where the file cannot be made.
    """
    while True:
        with lock.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_at(stream.fileno(), lock):
                continue  # the holder before us took it away: others lock a newer file
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
