"""What SIGINT and SIGTERM do: end the program cleanly, or, in the training loop, after the step under way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Exit with status 128 + signal, through every `finally`: nothing temporary stays, no child is left behind."""
    before = {number: signal.signal(number, _exit) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


class StopFlag:
    """Set by the first signal while it is entered; the loop looks at it between steps, so that none is half done.

    A second signal ends the program at once: the last checkpoint is then what remains.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._set) for number in STOPS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            sys.exit(128 + number)
        self.signal = number

    def __call__(self) -> bool:
        return self.signal is not None
