"""Who teaches a student: nobody, the uniform distribution, or a served teacher that fits the run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from trainer.config import Config
from trainer.data.city import City
from trainer.errors import BadInput, TeacherMismatch
from trainer.grid import TokenMap, map_roads
from trainer.teacher.address import NONE, UNIFORM, check_address, connect
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.protocol import Description, Teacher
from trainer.teacher.targets import Targets, TeacherTargets, UniformTargets

GRID_TOLERANCE = 1e-9  # degrees


@dataclass(frozen=True)
class Guide:
    """Who teaches: nobody (`targets` None), the uniform distribution, or a served teacher."""

    name: str  # "none", "uniform" or the teacher's digest
    targets: Targets | None
    teacher: Pool | None
    about: dict[str, Any]

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


def find_guide(address: str, config: Config, city: City) -> Guide:
    """Connects to the teacher and checks that it fits. Raises TeacherMismatch or TeacherUnavailable."""
    if address == NONE:
        return Guide(NONE, None, None, {"kind": NONE})
    distill = config.distill
    patience = Patience(distill.deadline_s, distill.on_teacher_loss, distill.wait_limit_s)
    teacher = connect(address, patience)
    if teacher is None:
        return Guide(UNIFORM, make_targets(config, None, None), None, {"kind": UNIFORM})
    try:
        found = teacher.description
        tokens = token_map(found, config, city)
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
    return Guide(found.digest, make_targets(config, teacher, tokens), teacher, about)


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


def make_targets(config: Config, teacher: Teacher | None, tokens: TokenMap | None) -> Targets:
    """What the KL pulls towards: the teacher, or the uniform distribution where there is none."""
    distill = config.distill
    if teacher is None or tokens is None:
        return UniformTargets(distill.positions)
    return TeacherTargets(
        teacher,
        tokens.road_to_token,
        window=0 if distill.window == "full" else distill.window,
        positions=distill.positions,
    )
