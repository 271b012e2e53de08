"""Errors whose message is meant for the user; commands print it as one line and exit with `exit_code`.

TrainerError
├── BadInput             a file, setting or flag that cannot be used               exit 2
│   └── BadLine          the same, at a known line of a file
├── TeacherMismatch      the teacher's identity, grid or vocabulary does not fit   exit 2
├── TeacherUnavailable   no teacher answers at the address                         exit 3
│   └── NoAnswer         the same, where the run goes on without this answer
├── Stopped              the work was ended from outside                           exit 1
├── CannotWrite          a file could not be written: full disk, no permission     exit 1
│   └── NotSaved         the same, of a run's checkpoint or metrics                exit 1
└── TrainingFailed       the run cannot go on                                      exit 1
    ├── Diverged         too many steps without a finite loss or gradient          exit 1
    └── RankLost         another process of the same run has ended                 exit 1
"""

from __future__ import annotations

from pathlib import Path


class TrainerError(Exception):
    """Base of all errors that a command reports without a traceback."""

    exit_code = 1


class BadInput(TrainerError):
    """Input that can never work as it is."""

    exit_code = 2


class BadLine(BadInput):
    """A bad value in a text file."""

    def __init__(self, file: Path, line: int, problem: str, value: object) -> None:
        shown = str(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{file}:{line}: {problem}: {shown!r}")
        self.file, self.line, self.problem, self.value = file, line, problem, value

    def __reduce__(self) -> tuple[object, ...]:
        """It may have to come back from another process."""
        return type(self), (self.file, self.line, self.problem, self.value)


class TeacherMismatch(TrainerError):
    """The teacher that answers is not the one that the data or the run was made for."""

    exit_code = 2


class TeacherUnavailable(TrainerError):
    """No teacher could be reached, or it died."""

    exit_code = 3


class NoAnswer(TeacherUnavailable):
    """No teacher answered this question, and the policy is to go on without."""


class Stopped(TrainerError):
    """Nobody waits for the result any more: a stop was asked for, or the teacher was closed."""


class CannotWrite(TrainerError):
    """A result could not be stored; what was there before is still there."""


class NotSaved(CannotWrite):
    """A run's checkpoint or metrics could not be stored; the checkpoint before is still there."""


class TrainingFailed(TrainerError):
    """Training stopped for a reason that input checks could not foresee."""


class Diverged(TrainingFailed):
    """Too many steps had a loss or gradient that is not finite."""


class RankLost(TrainingFailed):
    """Another process of a run on several devices is gone."""
