"""gRPC's status codes as the trainer's errors, for every protocol that a teacher speaks over it."""

from __future__ import annotations

import grpc

from trainer.errors import BadInput, TeacherMismatch, TeacherUnavailable, TrainerError

# It may answer later, or another one may.
FAILOVER = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


def translated(code: grpc.StatusCode, details: str, target: str) -> TrainerError:
    """The trainer's error for what `target` answered."""
    if code in FAILOVER:
        return TeacherUnavailable(f"no teacher answers at {target} ({code.name}: {details})")
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
        return TeacherMismatch(f"{target}: {details}")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return BadInput(f"{target} is a gRPC server, but no teacher ({details})")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return BadInput(f"{target} refused the request: {details}")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return BadInput(f"{target}: {details} (TRAINER_TEACHER_TOKEN_FILE names the file with the token)")
    return TeacherUnavailable(f"the teacher at {target} failed ({code.name}: {details})")
