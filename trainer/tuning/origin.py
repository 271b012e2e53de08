"""What a study is made from; all its workers, at any time, must have the same."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna import Study

import trainer
from trainer.config import Config
from trainer.errors import BadInput
from trainer.run_folder import Origin

ATTRIBUTE = "origin"
# What may change between one worker and the next: how much is to be done, not what.
EXTENT = ("n_trials", "heartbeat_s", "vanilla_baseline_pretune", "final_run", "vanilla_baseline")


def study_origin(config: Config, lasting: dict[str, Any], fingerprint: str, teacher: str) -> Origin:
    """`lasting`: the configuration's part that makes a run what it is. The trainer's own code counts too."""
    searched = {key: value for key, value in config.plain()["optuna"].items() if key not in EXTENT}
    return Origin({**lasting, "optuna": searched, "trainer's code": code_digest()}, fingerprint, teacher)


def code_digest() -> str:
    """SHA-256 over this program's sources: one study is made by one version."""
    root = Path(trainer.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def check_origin(study: Study, origin: Origin, where: str) -> None:
    """Marks a new study, and compares with an old one. Raises BadInput."""
    if ATTRIBUTE not in study.user_attrs:
        study.set_user_attr(ATTRIBUTE, asdict(origin))
    if difference := Origin(**study.user_attrs[ATTRIBUTE]).difference(origin):
        raise BadInput(f"{where}: cannot go on with this study, {difference}; name another --out or --study")
