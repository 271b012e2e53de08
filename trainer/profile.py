"""Where the time of training goes: the mean step of an interval, and the whole run as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from trainer.clock import Clock

STEP = "total_step_time"  # the clock's part that holds all others of a step
TEACHER = "distill_kl_(teacher)"
OWN = "own_routes"
PARTS = {  # the research code's names, in the order of a step
    "data_wait": "data wait",
    OWN: "drawing own routes",
    "data_transfer": "transfer, features",
    "hoser_forward": "student forward",
    TEACHER: "teacher KL wait",
    "backward_pass": "backward",
    "optimizer_step": "optimiser",
}


class Interval:
    """Means over the steps since they were last asked for."""

    def __init__(self, clock: Clock, trips: int) -> None:
        """`trips`: how many the run has trained on so far."""
        self._clock = clock
        self._steps = 0
        self._begin(dict(clock.seconds), trips)

    def step(self) -> None:
        """One more is done."""
        self._steps += 1

    def figures(self, trips: int) -> dict[str, float]:
        """Milliseconds of each part of a step, under the research code's names; trips and steps per second."""
        now = dict(self._clock.seconds)
        spent = {part: now.get(part, 0.0) - self._before.get(part, 0.0) for part in (*PARTS, STEP)}
        steps, done, total = self._steps, trips - self._trips, max(spent[STEP], 1e-9)
        self._begin(now, trips)
        return {f"perf/{part}_ms": 1000 * seconds / max(steps, 1) for part, seconds in spent.items()} | {
            "perf/iter_per_sec": steps / total,
            "perf/samples_per_s": done / total,
            "perf/teacher_wait_share": spent[TEACHER] / total,
        }

    def _begin(self, seconds: Mapping[str, float], trips: int) -> None:
        self._before, self._trips, self._steps = seconds, trips, 0


def profile_of(seconds: Mapping[str, float], trips: int) -> dict[str, Any]:
    """A run's training steps, validation left out: seconds by part, and shares of the steps' time."""
    total = max(seconds.get(STEP, 0.0), 1e-9)
    parts = {part: seconds.get(part, 0.0) for part in PARTS}
    parts["other"] = max(total - sum(parts.values()), 0.0)
    return {
        "parts": {part: {"seconds": round(s, 3), "share": round(s / total, 4)} for part, s in parts.items()},
        "step_seconds": round(total, 3),
        "teacher_wait_share": round(parts[TEACHER] / total, 4),
        "samples_per_s": round(trips / total, 2),
    }


def profile_table(profile: Mapping[str, Any]) -> Table:
    """What `profile_of` found, for people."""
    title = f"training steps: {profile['step_seconds']:,.1f} s, {profile['samples_per_s']:,.1f} samples/s"
    table = Table("part", title=title, title_justify="left")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for part, found in profile["parts"].items():
        table.add_row(PARTS.get(part, part), f"{found['seconds']:,.2f}", f"{100 * found['share']:.1f} %")
    return table
