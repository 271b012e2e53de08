"""Two ways to the same result, timed in turn in one process, so that what else the machine does falls on both."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4

Way = Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class Comparison:
    """Seconds of both ways, run by run."""

    name: str
    items: int  # that one run handles
    unit: str
    plain_s: tuple[float, ...]
    ours_s: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours is, run by run."""
        return [plain / ours for plain, ours in zip(self.plain_s, self.ours_s, strict=True)]

    def rate(self, seconds: tuple[float, ...]) -> float:
        """Median items a second."""
        return self.items / statistics.median(seconds)

    def to_json(self) -> dict[str, object]:
        ratios = self.ratios
        return {
            "name": self.name,
            "unit": f"{self.unit}/s",
            "plain": self.rate(self.plain_s),
            "ours": self.rate(self.ours_s),
            "ratio_median": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "runs": len(ratios),
            "plain_s": self.plain_s,
            "ours_s": self.ours_s,
        }


def compare(name: str, items: int, unit: str, *, plain: Way, ours: Way, runs: int, times: int = 1) -> Comparison:
    """Times both ways `runs` times after one warm-up run each, ours `times` times a run, of which it takes the mean.

    Raises ValueError when their results differ.
    """
    expected, found = plain(), ours()
    if not np.allclose(expected, found, atol=TOLERANCE):
        raise ValueError(f"{name}: the two ways differ by {np.abs(expected - found).max()}")
    pairs = [(seconds(plain), seconds(ours, times)) for _ in range(runs)]
    return Comparison(name, items, unit, tuple(p for p, _ in pairs), tuple(o for _, o in pairs))


def seconds(way: Callable[[], object], times: int = 1) -> float:
    """What one of so many calls takes."""
    start = perf_counter()
    for _ in range(times):
        way()
    return (perf_counter() - start) / times
