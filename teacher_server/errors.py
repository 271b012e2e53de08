"""The closed set of errors that the teacher's commands and doors know.

TeacherError
├── BadArtifact       a file that is not, or not wholly, a teacher             exit 2
├── BadSettings       flags, environment or files that cannot work             exit 2
├── InvalidRequest    a request that can never succeed                         INVALID_ARGUMENT
├── WrongTeacher      the request names another teacher than the one here      FAILED_PRECONDITION
├── Overloaded        the queue or a size limit is exceeded                    RESOURCE_EXHAUSTED
├── NotReady          starting up or shutting down                             UNAVAILABLE
└── EngineFailure     the computation itself failed                            INTERNAL

Each door maps the request errors to its protocol's status once; a test proves the mapping complete.
"""

from __future__ import annotations


class TeacherError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code = 2


class BadArtifact(TeacherError):
    """The teacher's files are missing, truncated, hostile or inconsistent."""


class BadSettings(TeacherError):
    """Flags, environment variables or input files that cannot work, or a file that cannot be written."""


class InvalidRequest(TeacherError):
    """The request breaks the protocol: wrong lengths, tokens out of range, nothing to score."""


class WrongTeacher(TeacherError):
    """The request names a digest that is not this teacher's."""


class Overloaded(TeacherError):
    """The request is larger than the limits allow, or the queue is full."""


class NotReady(TeacherError):
    """The service is warming up or draining."""


class EngineFailure(TeacherError):
    """The device could not compute a batch."""

    exit_code = 1
