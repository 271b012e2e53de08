"""The closed set of errors that the teacher's commands and doors know.

TeacherError
├── BadArtifact       a file that is not, or not wholly, a teacher             exit 2
├── BadSettings       flags, environment or files that cannot work             exit 2
├── InvalidRequest    a request that can never succeed                         INVALID_ARGUMENT     400
├── TooLarge          over a size limit: never here, but in smaller parts      RESOURCE_EXHAUSTED   413
├── Unauthenticated   no token, or an unknown one                              UNAUTHENTICATED      401
├── UnknownModel      a model or version that is not served here               NOT_FOUND            404
├── WrongTeacher      the request names another teacher than the one here      FAILED_PRECONDITION  412
├── Overloaded        the queue is full: later                                 RESOURCE_EXHAUSTED   429
├── Expired           the caller's deadline passed before the answer           DEADLINE_EXCEEDED    504
├── NotReady          starting up, stuck or shutting down                      UNAVAILABLE          503
└── EngineFailure     the computation itself failed                            INTERNAL             500

Each door maps the request errors to its protocol's status once; a test proves the mapping complete.
"""

from __future__ import annotations

MAX_BRIEF = 500  # characters; all trailers of a gRPC answer together may have some 8 kB


class TeacherError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code = 2

    @property
    def brief(self) -> str:
        """The message for a caller far away. What callers send is quoted in it, however long it is: cut here."""
        text = str(self)
        return text if len(text) <= MAX_BRIEF else f"{text[:MAX_BRIEF]}..."


class BadArtifact(TeacherError):
    """The teacher's files are missing, truncated, hostile or inconsistent."""


class BadSettings(TeacherError):
    """Flags, environment variables or input files that cannot work, or a file that cannot be written."""


class InvalidRequest(TeacherError):
    """The request breaks the protocol: wrong lengths, tokens out of range, nothing to score."""


class TooLarge(TeacherError):
    """The request is larger than the limits allow."""


class Unauthenticated(TeacherError):
    """The caller did not show a token that is known here."""


class UnknownModel(TeacherError):
    """The request names a model or a version that is not served here."""


class WrongTeacher(TeacherError):
    """The request names a digest that is not this teacher's."""


class Overloaded(TeacherError):
    """The queue is full. `retry_after` is the server's estimate, in seconds, of when there will be room."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Expired(TeacherError):
    """The caller's deadline passed before the device came to the request."""


class NotReady(TeacherError):
    """The service is warming up, stuck or draining."""

    exit_code = 1


class EngineFailure(TeacherError):
    """The device could not compute a batch."""

    exit_code = 1

    @classmethod
    def from_cause(cls, cause: Exception) -> EngineFailure:
        """What the caller is told: the engine's own words. What nobody expected may name files: the log has it."""
        expected = isinstance(cause, (ArithmeticError, MemoryError))
        return cls(f"the teacher could not compute this request: {cause if expected else 'see the log of the server'}")


REQUEST_ERRORS = tuple(each for each in TeacherError.__subclasses__() if each not in (BadArtifact, BadSettings))
