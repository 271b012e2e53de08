"""Trips on disk while others are still under way: a killed program loses those in flight and no others.

A line of JSON says what makes the trips; each finished trip follows as a line of its own, in any order.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import FileIO
from pathlib import Path as FilePath
from time import monotonic
from typing import Any

from trainer.errors import BadInput, CannotWrite
from trainer.generate.route import Cost, Found, Path, Route

SYNC_S = 1.0  # what a power failure may cost


class Journal:
    """Finished trips of one demand, found in the file and added to it."""

    def __init__(self, file: FilePath, stream: FileIO, found: dict[int, Found]) -> None:
        self.found = found  # by index
        self._file, self._stream, self._synced = file, stream, monotonic()

    def add(self, trip: Found) -> None:
        """Raises CannotWrite; what was added before stays."""
        self.found[trip.index] = trip
        try:
            _append(self._stream, asdict(trip))
            if monotonic() - self._synced > SYNC_S:
                os.fsync(self._stream.fileno())
                self._synced = monotonic()
        except OSError as error:
            raise _cannot(self._file, error) from error

    def done(self) -> None:
        """All of it stands elsewhere now."""
        self._file.unlink()


@contextmanager
def open_journal(file: FilePath, made_by: dict[str, Any]) -> Iterator[Journal]:
    """Goes on with a file that the same settings began, or begins one.

    Raises BadInput where others began it or another process has it open, CannotWrite where it cannot be written.
    """
    try:
        stream = file.open("a+b", buffering=0)
    except OSError as error:
        raise _cannot(file, error) from error
    with stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not shared with forked processes
        except (BlockingIOError, PermissionError):
            raise BadInput(f"{file}: another process is generating these trips") from None
        stream.seek(0)
        lines = stream.read().split(b"\n")[:-1]  # a last line without an end was cut off
        found = _read(file, lines, made_by) if lines else {}
        try:
            stream.truncate(sum(len(line) + 1 for line in lines))
            if not lines:
                _append(stream, made_by)
        except OSError as error:
            raise _cannot(file, error) from error
        yield Journal(file, stream, found)


def _read(file: FilePath, lines: list[bytes], made_by: dict[str, Any]) -> dict[int, Found]:
    try:
        begun, *trips = (json.loads(line) for line in lines)
        different = [name for name in made_by | begun if made_by.get(name) != begun.get(name)]
        found = [_found(trip) for trip in trips]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: is damaged ({error}); delete it to begin anew") from None
    if different:
        name = different[0]
        raise BadInput(
            f"{file}: was begun with {name} {_short(begun.get(name))}, not {_short(made_by.get(name))}: "
            "give the same settings to go on, or delete it to begin anew"
        )
    return {trip.index: trip for trip in found}


def _found(trip: dict[str, Any]) -> Found:
    route = trip["route"]
    path = Path(tuple(route["path"]["roads"]), tuple(route["path"]["times"]), route["path"]["log_prob"])
    return Found(trip["index"], Route(path, route["reached"], route["expansions"]), Cost(**trip["cost"]))


def _short(value: Any) -> str:
    """Of a digest its beginning."""
    return str(value)[:16]


def _append(stream: FileIO, value: dict[str, Any]) -> None:
    """A line, at once: no buffer holds what the disk did not take."""
    line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    while line:
        line = line[stream.write(line) :]


def _cannot(file: FilePath, error: OSError) -> CannotWrite:
    return CannotWrite(f"{file}: cannot be written ({error.strerror}); the same command goes on with what is there")
