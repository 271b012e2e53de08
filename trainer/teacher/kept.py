"""The teacher whose labels are kept, as far as they tell: enough to train without any server."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.data.city import City
from trainer.errors import BadInput
from trainer.grid import Grid
from trainer.teacher.protocol import Description, Limits
from trainer.teacher.store import KEY, LabelKey
from trainer.teacher.subject import Subject

NOTHING = Limits(0, 0, 0, 0, 0, 0)  # nobody is there to ask


def kept_teacher(root: Path, city: City, max_len: int, window: int, digest: str | None) -> Description:
    """The one teacher (`digest`, if given) with labels of this data's train split in a labels folder.

    Raises BadInput when there is none, or more than one.
    """
    found = {
        (key.teacher, key.compute_type): key
        for key in _keys(root)
        if (key.data, key.split, key.max_len, key.window) == (city.meta.fingerprint, "train", max_len, window)
        and digest in (None, key.teacher)
    }
    what = f"labels of this data for window {window or 'full'} and max_len {max_len}"
    if not found:
        raise BadInput(f"{root}: has no {what}; make them with `trainer label`, or name the folder with --labels")
    if len(found) > 1:
        teachers = ", ".join(f"{teacher[:16]} ({compute_type})" for teacher, compute_type in sorted(found))
        raise BadInput(f"{root}: has {what} from several teachers: {teachers}; keep one of them, or set teacher_digest")
    (key,) = found.values()
    return _description(key)


def complete(root: Path, subject: Subject) -> bool:
    """Whether a labels folder has all labels of a split; makes nothing."""
    return (root / subject.key.name).is_dir() and subject.open_store(root).complete


def _keys(root: Path) -> list[LabelKey]:
    keys = []
    for file in sorted(root.glob(f"*/{KEY}")):
        try:
            key = LabelKey(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):  # not ours, or of another version
            continue
        if key.content == "trips":
            keys.append(key)
    return keys


def _description(key: LabelKey) -> Description:
    grid = Grid(**key.grid)
    pad, eot, sot = range(grid.cells, grid.cells + 3)
    return Description(
        key.teacher, grid.cells + 3, grid.cells, pad, eot, sot, key.block_size, grid, key.compute_type, NOTHING
    )
