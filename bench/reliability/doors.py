"""A door as fuzz sees it: requests made, spoilt, sent, and understood without the server's help."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from bench.reliability.oracle import Oracle
from teacher_server.errors import Expired, InvalidRequest, TooLarge, UnknownModel, WrongTeacher
from teacher_server.rows import ScoreWork

R = TypeVar("R")
Numbers = NDArray[Any]
# What a caller may do wrong; all else would be the server's fault.
CALLERS_FAULTS = (InvalidRequest, TooLarge, UnknownModel, WrongTeacher, Expired)


class Senseless(ValueError):
    """These bytes are no message at all."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back."""

    status: str  # OK, or the protocol's name of what is wrong
    details: str = ""
    numbers: Numbers | None = None  # where the status is OK


class Door(Protocol[R]):
    """One way to ask. R: a request as it travels."""

    name: str
    refusals: frozenset[str]  # statuses that a wrong request may have
    senseless: str  # the status of bytes that are no message

    def request(self, work: ScoreWork, chance: random.Random) -> R:
        """A right one."""
        ...

    def spoilt(self, request: R, chance: random.Random) -> R:
        """The request with errors, which may by chance be another right one."""
        ...

    def random(self, chance: random.Random) -> R: ...

    async def ask(self, request: R) -> Answer: ...

    def expected(self, request: R, oracle: Oracle) -> Numbers:
        """The right answer. Raises Senseless, and any error for a message that has no answer."""
        ...
