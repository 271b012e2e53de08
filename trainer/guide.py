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
from trainer.teacher.address import LABELS, NONE, UNIFORM, check_address, connect
from trainer.teacher.kept import complete, kept_teacher
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.protocol import Description
from trainer.teacher.stored import StoredTargets
from trainer.teacher.subject import Subject
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

    @property
    def digest(self) -> str | None:
        """The teacher's, where there is one."""
        return None if self.name in (NONE, UNIFORM) else self.name

    def targets_of(self, split: str) -> Targets | None:
        """From the split's label store where there is one, which fills on the way."""
        return self.stored.get(split, self.targets)

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
            "no teacher: give --teacher "
            "local:FOLDER, grpc://HOST:PORT, triton://HOST:PORT/MODEL, labels, uniform or none"
            + (hint if distill.ckpt else "")
        )
    return address


def find_guide(
    address: str, config: Config, city: City, labels: Path | None = None, digest: str | None = None
) -> Guide:
    """Connects to the teacher and checks that it fits; keeps its answers in the folder `labels`, if given.

    Of several teachers at the address the one that the config names is asked, or else the one with this `digest`.
    Raises TeacherMismatch, TeacherUnavailable, CannotWrite or BadInput.
    """
    if address == NONE:
        return Guide(NONE, None, None, {"kind": NONE})
    if address == LABELS:
        return _guide_by_labels(labels, config, city)
    distill = config.distill
    patience = Patience(distill.deadline_s, distill.on_teacher_loss, distill.wait_limit_s)
    teacher = connect(address, patience, digest=distill.teacher_digest or digest)
    if teacher is None:
        return Guide(UNIFORM, UniformTargets(distill.positions), None, {"kind": UNIFORM})
    try:
        return guide_by(teacher, address, config, city, labels)
    except BaseException:
        teacher.close()
        raise


def guide_by(teacher: Pool, address: str, config: Config, city: City, labels: Path | None) -> Guide:
    """The same with a connection that is there already."""
    distill, found = config.distill, teacher.description
    tokens = token_map(found, config, city)
    live = TeacherTargets(teacher, tokens.road_to_token, window=distill.history, positions=distill.positions)
    stored = _kept_by(labels, config, city, teacher, tokens) if labels else {}
    about = {"kind": "served", "address": address} | _about(found, tokens)
    return Guide(found.digest, live, teacher, about, stored)


def _kept_by(labels: Path, config: Config, city: City, teacher: Pool, tokens: TokenMap) -> dict[str, StoredTargets]:
    """Stores of the splits that the KL is measured on."""
    ask = TeacherTargets(teacher, tokens.road_to_token, window=config.distill.history)
    return {
        split: _stored(labels, subject, ask, tokens, config.distill.positions)
        for split, subject in _subjects(config, city, teacher.description).items()
    }


def _subjects(config: Config, city: City, teacher: Description) -> dict[str, Subject]:
    """What a run's labels are of."""
    max_len, window = config.trajectory_encoder_config.max_len, config.distill.history
    return {split: Subject(city, split, max_len, window, teacher) for split in LABELLED}


def _guide_by_labels(labels: Path | None, config: Config, city: City) -> Guide:
    """Nobody is asked: all labels of the train split must be there; those of the test split are used if they are."""
    if labels is None:
        raise BadInput("--teacher labels reads what `trainer label` or a run has kept; it works for training only")
    if config.distill.own_part:
        raise BadInput(
            f"distill.mode is {config.distill.mode}, and kept labels know nothing of routes that the student draws; "
            "give --teacher local:FOLDER, grpc://, triton:// or uniform, or set distill.mode=off-policy"
        )
    distill, max_len = config.distill, config.trajectory_encoder_config.max_len
    found = kept_teacher(labels, city, max_len, distill.history, distill.teacher_digest)
    tokens = token_map(found, config, city)
    stored = {
        split: _stored(labels, subject, None, tokens, distill.positions)
        for split, subject in _subjects(config, city, found).items()
        if split == "train" or complete(labels, subject)
    }
    if (share := stored["train"].share) < 1:
        raise BadInput(f"{labels}: has labels of {share:.1%} of the train trips only; `trainer label` makes the others")
    return Guide(found.digest, None, None, {"kind": "labels"} | _about(found, tokens), stored)


def _about(found: Description, tokens: TokenMap) -> dict[str, Any]:
    return {
        "digest": found.digest,
        "grid": str(found.grid),
        "compute_type": found.compute_type,
        "clamped_roads": tokens.clamped,
    }


def _stored(labels: Path, subject: Subject, ask: Targets | None, tokens: TokenMap, positions: str) -> StoredTargets:
    """A split's labels; what they lack `ask` is asked for, at all positions."""
    return StoredTargets(
        subject.open_store(labels),
        ask,
        tokens.road_to_token,
        longest_history=subject.longest_history,
        positions=positions,
    )


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
