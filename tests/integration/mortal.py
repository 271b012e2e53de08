"""Teachers that a test kills, freezes and replaces while a trainer asks them."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.serving import finished, start, wait_until_ready

# A run takes some seconds then, and questions are under way for most of them.
SLOWLY = ("--max-queue-delay", "0.6")


class Mortal:
    """A teacher's port, and whoever serves there."""

    def __init__(
        self, artifact: Path, address: str = "127.0.0.1:0", flags: Sequence[str] = SLOWLY, within: Sequence[str] = ()
    ) -> None:
        """`within`: words before the server's command, as of `start`."""
        self._meant, self._flags, self._within = artifact, flags, within
        self.where = address
        self.back()

    def ready(self) -> None:
        if self._awaited:
            self.where, self._awaited = wait_until_ready(self._process).grpc, False

    def stop(self) -> None:
        """Asks it to end, which it must do well."""
        self._process.send_signal(signal.SIGTERM)
        finished(self._process, 0)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def back(self, artifact: Path | None = None) -> None:
        """On its way up again, as itself or as another teacher."""
        self._served = artifact or self._meant
        flags = (*self._flags, "--grpc-address", self.where)
        self._process, self._awaited = start(self._served, *flags, within=self._within), True

    def recover(self) -> None:
        """From whatever was done to it."""
        self.wake()
        if self._process.poll() is not None or self._served != self._meant:
            self.kill()
            self.back()


def places(teachers: Iterable[Mortal]) -> str:
    return ",".join(teacher.where for teacher in teachers)
