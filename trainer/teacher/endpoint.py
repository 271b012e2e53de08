"""One place that a teacher answers at, and what may go wrong there: the seam between the pool and the protocols."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from trainer.errors import BadInput, TeacherMismatch, TeacherUnavailable, TrainerError
from trainer.teacher.protocol import Answer, Description, Likelihoods, Query, TripQuery


class Trouble(Enum):
    """What a failure means to whoever asks."""

    LOST = "lost"  # no connection, no answer in time, or a failure over there: another endpoint may answer
    FULL = "full"  # too many wait there: it is well, and will take more later
    OTHER = "other"  # it is another teacher than the one that is meant
    MISTAKE = "mistake"  # a request, token or address that will be refused as often as it is tried


ERRORS: dict[Trouble, type[TrainerError]] = {
    Trouble.LOST: TeacherUnavailable,
    Trouble.FULL: TeacherUnavailable,
    Trouble.OTHER: TeacherMismatch,
    Trouble.MISTAKE: BadInput,
}


class EndpointError(Exception):
    """A call that failed. Of OTHER and MISTAKE the message names the endpoint; of LOST and FULL it is only why."""

    def __init__(self, trouble: Trouble, message: str, pushback_s: float | None = None) -> None:
        """`pushback_s`: when the server itself wants to be asked again."""
        super().__init__(message)
        self.trouble, self.message, self.pushback_s = trouble, message, pushback_s

    def for_user(self) -> TrainerError:
        return ERRORS[self.trouble](self.message)


TOO_OLD = "is too old to judge whole trips: update it"  # said of an endpoint, after its name


class Endpoint(Protocol):
    """One address and its protocol. Thread-safe."""

    def describe(self, timeout: float, digest: str = "") -> Description:
        """Who answers, once it says that it serves; within about `timeout` seconds. Raises EndpointError.

        Of several teachers there the one with this `digest` is meant.
        """
        ...

    def score(self, query: Query, timeout: float) -> Answer:
        """The answer of the teacher that was described last; `timeout` is for each of the query's requests.

        Raises EndpointError, and BadInput for a query that no request can hold.
        """
        ...

    def likelihood(self, query: TripQuery, timeout: float) -> Likelihoods:
        """As `score`, for whole trips."""
        ...

    def close(self) -> None:
        """Ends its calls at once."""
        ...
