"""When to try again what failed for want of something that may come back, such as memory or a disk."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 600.0


class Retries:
    """After pauses that grow, by name: each is twice the one before."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def failed(self, name: str) -> None:
        """Once more: pause before the next try."""
        pause = min(2 * self._pauses[name], LONGEST_PAUSE_S) if name in self._pauses else FIRST_PAUSE_S
        self._pauses[name], self._due[name] = pause, self._clock() + pause

    def forget(self, name: str) -> None:
        """It needs no further try."""
        self._pauses.pop(name, None)
        self._due.pop(name, None)

    def hurry(self) -> None:
        """What was missing may be there now: all are due."""
        self._due = dict.fromkeys(self._due, self._clock())

    def due(self, name: str) -> bool:
        """Whether its pause is over."""
        return name in self._due and self._due[name] <= self._clock()
