"""Labels asked once and kept: the teacher's log-probabilities at temperature 1 of all candidates of every step.

A store is a folder of three files for n items (the trips of a split) that have N values in all:

    key.json    what the labels are of; a store is only opened with the same key
    values.f16  [N] float16, little-endian, item after item
    marks.u32   [n] 0: not there yet; otherwise the CRC-32 of the item's values (1 where that is 0)

Both arrays are memory-mapped and shared by all processes of one machine. An item is there exactly if its mark is the
checksum of its values, so it does not matter in which order the system writes pages, or where a crash, a cut file or a
rotten block meets them: what does not match counts as not there when the store is opened, and is asked again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from trainer.data.trips import Ints, ranges
from trainer.errors import BadInput, CannotWrite
from trainer.files import only_one, write_json

Halves = NDArray[np.float16]

KEY, VALUES, MARKS = "key.json", "values.f16", "marks.u32"
FORMAT = 1
MEND = "delete the folder {} and label again"


@dataclass(frozen=True)
class LabelKey:
    """Everything that labels depend on."""

    data: str  # fingerprint of the prepared data
    split: str
    max_len: int  # steps; longer trips were cut to their last ones
    teacher: str  # digest
    grid: dict[str, Any]
    block_size: int
    window: int  # 0: the whole prefix
    compute_type: str  # replicas of unequal type give unequal labels
    content: str = "trips"
    format: int = FORMAT

    @property
    def name(self) -> str:
        """Of the store's folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.split}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class LabelStore:
    """An open store. Reading and writing are safe in threads and among processes; the first to write an item wins."""

    def __init__(self, folder: Path, content: str, offsets: Ints) -> None:
        """Opens the files of a folder that has the right key (see `open_or_create`). Raises BadInput."""
        self.folder = folder
        self._starts, self._counts = offsets[:-1], np.diff(offsets)
        shapes = ((VALUES, "<f2", int(offsets[-1])), (MARKS, "<u4", len(self._counts)))
        was_cut = [_make_whole(folder / name, np.dtype(dtype).itemsize * max(size, 1)) for name, dtype, size in shapes]
        self._values, self._marks = (
            np.memmap(folder / name, dtype, "r+", shape=(max(size, 1),)) for name, dtype, size in shapes
        )
        lost = self._drop_damaged()
        if lost or any(was_cut):
            known = f"of {len(self._counts)} {content} {np.count_nonzero(self._marks)} are left"
            print(f"trainer: note: {folder}: was damaged; {known}, the others are asked again", file=sys.stderr)

    @classmethod
    def open_or_create(cls, root: Path, key: LabelKey, offsets: Ints) -> LabelStore:
        """The store of a key in the folder `root`; `offsets` [n + 1] say where each item's values begin.

        Room for all values is taken at once. Raises CannotWrite without a trace when it is not there, and BadInput for
        a folder that holds something else.
        """
        folder = root / key.name
        try:
            if not folder.exists():
                root.mkdir(parents=True, exist_ok=True)
                with only_one(root / f"{key.name}.lock"):
                    _create(folder, key, offsets)
        except OSError as error:
            raise CannotWrite(
                f"{root}: cannot keep labels here ({error.strerror}); name another folder with --labels"
            ) from None
        _check_key(folder, key)
        return cls(folder, key.content, offsets)

    @property
    def complete(self) -> bool:
        return bool(self._marks.all())

    @property
    def share(self) -> float:
        """Of the items, those that are there, 0..1."""
        return float(np.count_nonzero(self._marks) / max(len(self._marks), 1))

    def has(self, items: Ints) -> NDArray[np.bool_]:
        """Whether the values of each item are there."""
        return self._marks[items] != 0

    def read(self, items: Ints) -> Halves:
        """The values of the items, one after another. They must be there."""
        assert self.has(items).all(), "ask `has` first"
        return self._values[ranges(self._starts[items], self._counts[items])]

    def write(self, items: Ints, values: NDArray[np.floating]) -> None:
        """Keeps the values of distinct items, one after another, as float16. What is there already stays as it is."""
        with np.errstate(over="ignore"):  # to -inf: counted as not finite by those who read it
            halves = values.astype("<f2")
        sizes = self._counts[items]
        assert len(halves) == sizes.sum()
        with self._writing():
            fresh = ~self.has(items)
            starts, counts = self._starts[items[fresh]], sizes[fresh]
            kept = halves[np.repeat(fresh, sizes)]
            self._values[ranges(starts, counts)] = kept
            self._marks[items[fresh]] = _checksums(kept, np.cumsum(counts) - counts, counts)

    def sync(self) -> None:
        """Brings what was written onto the disk, so that not even a power failure takes it. Raises CannotWrite."""
        try:
            self._values.flush()
            self._marks.flush()
        except OSError as error:
            raise CannotWrite(f"{self.folder}: cannot be written ({error.strerror})") from None

    def _drop_damaged(self) -> int:
        """Takes away the marks of items whose values are not those that were written; returns how many."""
        there = self._marks != 0  # a copy: numpy counts before it lists, and others may write in between
        damaged = self._mismatches(np.flatnonzero(there))
        if len(damaged):
            with self._writing():
                damaged = self._mismatches(damaged)  # another process may have been in the middle of writing them
                self._marks[damaged] = 0
        return len(damaged)

    def _mismatches(self, items: Ints) -> Ints:
        return items[_checksums(self._values, self._starts[items], self._counts[items]) != self._marks[items]]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time; through a file of its own, because locks belong to open files, not to threads."""
        with (self.folder / MARKS).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _checksums(values: Halves, starts: Ints, counts: Ints) -> NDArray[np.uint32]:
    """The mark of each of some parts of values, never 0."""
    content = values.view(np.uint8).data
    ends = 2 * (starts + counts)
    parts = (content[start:end] for start, end in zip((2 * starts).tolist(), ends.tolist(), strict=True))
    return np.fromiter((crc32(part) or 1 for part in parts), np.uint32, len(starts))


def _create(folder: Path, key: LabelKey, offsets: Ints) -> None:
    """A store without labels, whole or not at all, unless another process has just made it. The caller has the lock."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    partial.mkdir()
    sizes = {VALUES: 2 * max(int(offsets[-1]), 1), MARKS: 4 * max(len(offsets) - 1, 1)}
    try:
        for name, size in sizes.items():
            _take_room(partial / name, size)
        write_json(partial / KEY, asdict(key))
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _take_room(file: Path, size: int) -> None:
    """Makes the file that long, zeros behind what it has, and takes the disk's blocks for it. Raises CannotWrite."""
    with file.open("ab") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            free = shutil.disk_usage(file.parent).free
            raise CannotWrite(
                f"{file.parent.parent}: labels need {size:,} bytes, {free:,} are free here ({error.strerror}); "
                "make room or name another folder with --labels"
            ) from None


def _make_whole(file: Path, size: int) -> bool:
    """Whether the file was too short; then it is made longer. Raises BadInput for one that is none of ours."""
    try:
        found = file.stat().st_size
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); {MEND.format(file.parent)}") from None
    if found > size:
        raise BadInput(f"{file}: has {found:,} bytes instead of {size:,}; {MEND.format(file.parent)}")
    if found < size:
        _take_room(file, size)
    return found < size


def _check_key(folder: Path, key: LabelKey) -> None:
    """Raises BadInput, naming the first difference, unless the folder holds the labels of that key."""
    try:
        found = json.loads((folder / KEY).read_text())
        wrong = next((name for name, value in asdict(key).items() if found.get(name) != value), None)
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{folder / KEY}: is no label store's ({error}); {MEND.format(folder)}") from None
    if wrong is not None:
        values = f"{wrong} is {found.get(wrong)!r} and must be {asdict(key)[wrong]!r}"
        raise BadInput(f"{folder}: holds other labels: {values}; {MEND.format(folder)}")
