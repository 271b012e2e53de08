"""What labels are of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.data.city import City
from trainer.teacher.layout import Steps, all_steps, value_offsets
from trainer.teacher.protocol import Description
from trainer.teacher.store import LabelKey, LabelStore


def default_labels(prepared: Path) -> Path:
    """Where the labels of a prepared data set are kept unless told otherwise: beside it."""
    return prepared.with_name(f"{prepared.name}.labels")


@dataclass(frozen=True)
class Subject:
    """A split as a student sees it, under a window (0: the whole prefix) of a teacher."""

    city: City
    split: str
    max_len: int  # steps; longer trips keep their last ones
    window: int
    teacher: Description

    @property
    def key(self) -> LabelKey:
        return LabelKey(
            data=self.city.meta.fingerprint,
            split=self.split,
            max_len=self.max_len,
            teacher=self.teacher.digest,
            grid=asdict(self.teacher.grid),
            block_size=self.teacher.block_size,
            window=self.window,
            compute_type=self.teacher.compute_type,
        )

    @property
    def longest_history(self) -> int | None:
        """Tokens of a history that fit into the teacher's block; None where a window leaves no more than that."""
        room = self.teacher.block_size - 1
        return None if 0 < self.window <= room else room

    def steps(self) -> Steps:
        return all_steps(self.city.trips[self.split], self.city.road_map, self.max_len)

    def open_store(self, root: Path) -> LabelStore:
        """Its store in a labels folder, made if it is not there. Raises CannotWrite or BadInput."""
        return LabelStore.open_or_create(root, self.key, value_offsets(self.steps()))
