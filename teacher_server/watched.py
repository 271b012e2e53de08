"""Values that come from files and are read again when the files change: certificates, tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from teacher_server.errors import BadSettings

T = TypeVar("T")
Stamp = tuple[tuple[int, ...] | None, ...]

log = logging.getLogger("teacher")


class Watched(Generic[T]):
    """What `load` makes of some files, always as the files are now. Any thread may ask.

    `load` raises BadSettings for files that cannot be used: at the start that is the caller's error; later the
    last good value stays in use, and one line is logged for each such change.
    """

    def __init__(self, files: tuple[Path, ...], load: Callable[[], T]) -> None:
        self._files, self._load = files, load
        self._lock = threading.Lock()
        self._stamp = stamp_of(files)
        self._value = load()

    def value(self) -> T:
        """The newest good value. It costs one stat for each file."""
        with self._lock:
            stamp = stamp_of(self._files)
            if stamp != self._stamp:
                self._renew(stamp)
            return self._value

    def _renew(self, stamp: Stamp) -> None:
        names = ", ".join(str(file) for file in self._files)
        try:
            value = self._load()
        except BadSettings as error:
            log.error("%s; what was read before stays in use", error)
            self._stamp = stamp
            return
        if stamp_of(self._files) == stamp:  # else they are just being written: the next caller looks again
            self._stamp, self._value = stamp, value
            log.info("read again, for it changed: %s", names)


def stamp_of(files: tuple[Path, ...]) -> Stamp:
    """Changes whenever a file is written or another one takes its place, also behind a link."""

    def of(file: Path) -> tuple[int, ...] | None:
        try:
            found = file.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    return tuple(of(file) for file in files)
