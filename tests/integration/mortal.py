"""Teachers that a test kills, freezes and replaces while a trainer asks them."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

from tests.serving import start, wait_until_ready

# A run takes some seconds then, and questions are under way for most of them.
SLOWLY = ("--max-queue-delay", "0.6")


class Mortal:
    """A teacher's port, and whoever serves there."""

    def __init__(self, artifact: Path) -> None:
        self._meant = self._served = artifact
        self._process, self._awaited = start(artifact, *SLOWLY), True
        self.where = ""

    def ready(self) -> None:
        if self._awaited:
            self.where, self._awaited = wait_until_ready(self._process).grpc, False

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
        self._process, self._awaited = start(self._served, *SLOWLY, "--grpc-address", self.where), True

    def recover(self) -> None:
        """From whatever was done to it."""
        self.wake()
        if self._process.poll() is not None or self._served != self._meant:
            self.kill()
            self.back()


def places(teachers: Iterable[Mortal]) -> str:
    return ",".join(teacher.where for teacher in teachers)
