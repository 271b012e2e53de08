"""Who teaches a student: nobody, the uniform distribution, or a served teacher that fits the run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.data.city import City
from trainer.errors import BadInput, TeacherMismatch
from trainer.grid import TokenMap, map_roads
from trainer.teacher.address import NONE, UNIFORM, check_address, connect
from trainer.teacher.label import Subject
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.protocol import Description, Teacher
from trainer.teacher.stored import StoredTargets
from trainer.teacher.targets import Targets, TeacherTargets, UniformTargets

GRID_TOLERANCE = 1e-9  # degrees
LABELLED = ("train", "test")  # splits that a run asks a teacher about


@dataclass(frozen=True)
class Guide:
    """Who teaches: nobody (`targets` None), the uniform distribution, or a served teacher."""

    name: str  # "none", "uniform" or the teacher's digest
    targets: Targets | None  # asked live
    teacher: Pool | None
    about: dict[str, Any]
    stored: Mapping[str, StoredTargets] = field(default_factory=dict)  # by split, where answers are kept

    def targets_of(self, split: str) -> Targets | None:
        """From the split's label store where there is one, which fills on the way."""
        return self.stored.get(split, self.targets)

    @property
    def digest(self) -> str | None:
        return self.teacher.description.digest if self.teacher else None

    def close(self) -> None:
        if self.teacher:
            self.teacher.close()


def teacher_address(flag: str | None, config: Config) -> str:
    """The flag goes before the config; `enable: false` and lambda 0 mean nobody. Raises BadInput without any."""
    distill = config.distill
    address = flag or distill.teacher
    if address is not None:
        check_address(address)
    if not distill.enable or distill.lambda_ == 0:
        if address not in (None, NONE):
            why = "distill.lambda is 0" if distill.enable else "distill.enable is false"
            print(f"trainer: note: {why}, so nobody asks the teacher {address}", file=sys.stderr)
        return NONE
    if address is None:
        hint = f" (the config's distill.ckpt is {distill.ckpt}: make a teacher of it with `teacher export`)"
        raise BadInput(
            "no teacher: give --teacher local:FOLDER, grpc://HOST:PORT, triton://HOST:PORT/MODEL, uniform or none"
            + hint * bool(distill.ckpt)
        )
    return address


def find_guide(address: str, config: Config, city: City, labels: Path | None = None) -> Guide:
    """Connects to the teacher and checks that it fits; keeps its answers in the folder `labels`, if given.

    Raises TeacherMismatch, TeacherUnavailable, CannotWrite or BadInput.
    """
    if address == NONE:
        return Guide(NONE, None, None, {"kind": NONE})
    distill = config.distill
    patience = Patience(distill.deadline_s, distill.on_teacher_loss, distill.wait_limit_s)
    teacher = connect(address, patience)
    if teacher is None:
        return Guide(UNIFORM, UniformTargets(distill.positions), None, {"kind": UNIFORM})
    try:
        found = teacher.description
        tokens = token_map(found, config, city)
        window = 0 if distill.window == "full" else distill.window
        live = TeacherTargets(teacher, tokens.road_to_token, window=window, positions=distill.positions)
        stored = _stored(labels, config, city, teacher, tokens, window) if labels else {}
    except BaseException:
        teacher.close()
        raise
    about = {
        "kind": "served",
        "address": address,
        "digest": found.digest,
        "grid": str(found.grid),
        "compute_type": found.compute_type,
        "clamped_roads": tokens.clamped,
    }
    return Guide(found.digest, live, teacher, about, stored)


def _stored(
    labels: Path, config: Config, city: City, teacher: Teacher, tokens: TokenMap, window: int
) -> dict[str, StoredTargets]:
    """Stores of the splits that the KL is measured on; what they lack is asked for all positions and kept."""
    max_len, described = config.trajectory_encoder_config.max_len, teacher.description
    room = described.block_size - 1
    ask = TeacherTargets(teacher, tokens.road_to_token, window=window)
    return {
        split: StoredTargets(
            Subject(city, split, max_len, window, described).open_store(labels),
            ask,
            tokens.road_to_token,
            longest_history=None if 0 < window <= room else room,
            positions=config.distill.positions,
        )
        for split in LABELLED
    }


def token_map(description: Description, config: Config, city: City) -> TokenMap:
    """Every road's token for a teacher that fits the configuration and the road map. Raises TeacherMismatch."""
    distill, grid = config.distill, description.grid
    if distill.teacher_digest not in (None, description.digest):
        raise TeacherMismatch(
            f"the run is for teacher {distill.teacher_digest}, the teacher that answers is {description.digest}"
        )
    for name, wanted, found in (
        ("grid_size", distill.grid_size, grid.cell_lat),
        ("grid_size", distill.grid_size, grid.cell_lng),
        ("downsample", distill.downsample, grid.downsample),
    ):
        if wanted is not None and abs(wanted - found) > GRID_TOLERANCE:
            raise TeacherMismatch(f"distill.{name} is {wanted:g} in the config, but {found:g} at the teacher")
    window = distill.window
    if window != "full" and window > description.block_size - 1:
        raise TeacherMismatch(
            f"distill.window is {window}, but the teacher's block holds {description.block_size - 1} tokens and SOT"
        )
    return map_roads(grid, city.road_map.centres)
