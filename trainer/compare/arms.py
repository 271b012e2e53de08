"""Arms of a comparison: runs that differ by nothing but their seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.compare.runs import Run
from trainer.errors import BadInput


@dataclass(frozen=True)
class Arm:
    """Some runs under one name."""

    name: str
    runs: tuple[Run, ...]
    given: bool = False  # by the user; else by what the runs have in common

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    def differing(self) -> list[str]:
        """Settings in which the runs of this arm differ; none unless the user put them together."""
        return differing_settings([run.settings for run in self.runs])


def parse_arm(text: str) -> tuple[str, list[Path]]:
    """NAME=RUN,RUN,... Raises BadInput."""
    name, equals, runs = text.partition("=")
    paths = [Path(run) for run in runs.split(",") if run]
    if not (name and equals and paths):
        raise BadInput(f"--arm {text!r}: must be NAME=RUN,RUN,...")
    return name, paths


def group(runs: Sequence[Run]) -> list[Arm]:
    """One arm for all runs of the same settings, in the order of their first runs, named after the folders."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps([run.settings, run.origin["data_fingerprint"]], sort_keys=True)
        groups.setdefault(key, []).append(run)
    arms: list[Arm] = []
    for members in groups.values():
        name = _name(members)
        taken = [arm.name for arm in arms]
        arms.append(Arm(name if name not in taken else str(members[0].folder), tuple(members)))
    return arms


def _name(runs: Sequence[Run]) -> str:
    """What the folders' names are without the seed at their ends: `tuned` for tuned-42 and tuned-43."""
    names = [run.folder.resolve().name for run in runs]
    stems = {name.rstrip("0123456789").rstrip("-_. ") for name in names}
    return stems.pop() if len(names) > 1 and len(stems) == 1 and "" not in stems else names[0]


def check_arms(arms: Sequence[Arm]) -> None:
    """Raises BadInput for fewer than two arms, names twice, a run in two places, or a student twice in one arm."""
    if len(arms) < 2:
        which = f" ({arms[0].name}: {', '.join(str(run.folder) for run in arms[0].runs)})" if arms else ""
        raise BadInput(f"a comparison needs two arms, these runs differ by their seeds only{which}")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise BadInput(f"two arms are called {max(names, key=names.count)}")
    places = [run.folder.resolve() for arm in arms for run in arm.runs]
    if len(set(places)) < len(places):
        raise BadInput(f"{max(places, key=places.count)}: is given twice")
    for arm in arms:
        for run in arm.runs:
            same = [other.folder for other in arm.runs if other.digest == run.digest]
            if len(same) > 1:  # a copy would count as another seed, and say that seeds make no difference
                raise BadInput(f"{same[0]} and {same[1]}: are one and the same student; give one of them")


def differing_settings(each: Sequence[dict[str, Any]]) -> list[str]:
    """Names of settings that are not the same everywhere."""
    names = sorted({name for settings in each for name in settings})
    return [name for name in names if len({json.dumps(settings.get(name)) for settings in each}) > 1]


def described(arms: Sequence[Arm]) -> list[str]:
    """How the runs were put together, a line for each arm."""
    apart = differing_settings([arm.runs[0].settings for arm in arms])
    lines = []
    for arm in arms:
        runs = ", ".join(f"{run.folder} (seed {run.seed})" for run in arm.runs)
        values = ", ".join(f"{name}={_short(arm.runs[0].settings.get(name))}" for name in apart)
        again = "; some of its runs have the same seed" if len(set(arm.seeds)) < len(arm.runs) else ""
        odd = f"; its runs, put together by hand, differ in {', '.join(arm.differing())}" if arm.differing() else ""
        lines.append(f"{arm.name}: {runs}{f' with {values}' if values else ''}{odd}{again}")
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text[:16] if len(text) == 64 else text
