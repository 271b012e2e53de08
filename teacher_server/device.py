"""A device that several batchers share: it computes one batch at a time, and they take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from teacher_server.worker import Worker

T = TypeVar("T")


class Device:
    """One thread that computes, in the order in which it was asked.

    A batcher asks for one batch at a time, so of those with work each has every so many-th batch, and the memory
    that batches need is that of one. When a batch does not end nobody's does: `stuck` is everybody's.
    """

    def __init__(self) -> None:
        self.stuck = False
        self._thread = Worker("teacher-device")
        self._turn = asyncio.Lock()  # goes to those that wait in their order
        self._sharers: dict[Callable[[bool], None], None] = {}

    def share(self, on_stuck: Callable[[bool], None]) -> None:
        """`on_stuck` hears, in the event loop, when the device is stuck and when it is not any more."""
        self._sharers[on_stuck] = None

    def leave(self, on_stuck: Callable[[bool], None]) -> None:
        """The opposite of `share`."""
        self._sharers.pop(on_stuck, None)

    async def begin(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Wait for one's turn, and begin. The turn lasts until the call ends, whether or not somebody waits for it."""
        await self._turn.acquire()
        running = self._thread.do(call, *arguments)
        running.add_done_callback(self._ended)
        return running

    def set_stuck(self, stuck: bool = True) -> None:
        """Tell all who share the device; it is stuck until what it computes has ended."""
        self.stuck = stuck
        for on_stuck in list(self._sharers):
            on_stuck(stuck)

    def _ended(self, _: object) -> None:
        self._turn.release()
        if self.stuck:
            self.set_stuck(False)

    def close(self) -> None:
        """End the thread after what it was given."""
        self._thread.close()
