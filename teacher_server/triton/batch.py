"""Dense requests -> answers, many at a time: what a Triton server's dynamic batch is put through.

Requests of any shapes share rows and batches, as in our own server; one that is wrong, or that cannot be computed,
fails alone. Knows nothing of Triton, so that it can be tested without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from teacher_server.admission import check_limits, check_row_tokens, check_trip_limits, check_trips, check_work
from teacher_server.dense import LOG_PROBS, answer_dtype, read_request, read_trips, trip_outputs
from teacher_server.description import TeacherDescription
from teacher_server.engine import Engine
from teacher_server.errors import EngineFailure, TeacherError, WrongTeacher
from teacher_server.limits import Limits
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import Floats, ScoreWork
from teacher_server.trips import sums_of_trips

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Call:
    """One request as it arrives."""

    arrays: Arrays
    digest: str = ""  # of the teacher that is meant; empty: any
    datatype: str = "FP32"  # of LOG_PROBS
    of_trips: bool = False  # whether it asks how probable whole trips are


@dataclass(frozen=True, eq=False)
class _Admitted:
    """A request's work, and what makes its outputs, by name, of the answer."""

    work: ScoreWork
    outputs: Callable[[Floats], Arrays]


class DenseScorer:
    """One teacher that answers lists of calls."""

    def __init__(self, description: TeacherDescription, engine: Engine, limits: Limits, token_budget: int) -> None:
        """`token_budget`: padded tokens that are computed at once."""
        self._description, self._engine, self._limits = description, engine, limits
        special = description.special
        self._packer = Packer(description.model.block_size, special.sot, special.pad, token_budget)

    def answers(self, calls: Sequence[Call]) -> list[Arrays | TeacherError]:
        """Each call's outputs by name, or what is wrong with it."""
        requests = [self._admitted(call) for call in calls]
        flat = iter(self._together([request.work for request in requests if isinstance(request, _Admitted)]))
        return [_written(request, next(flat)) if isinstance(request, _Admitted) else request for request in requests]

    def _admitted(self, call: Call) -> _Admitted | TeacherError:
        try:
            if call.digest and call.digest != self._description.digest:
                raise WrongTeacher(f"the request is for teacher {call.digest}, but this is {self._description.digest}")
            answer_dtype(call.datatype)
            request = self._trips(call) if call.of_trips else self._candidates(call)
            check_row_tokens(request.work, self._description.model.block_size, self._limits)
        except TeacherError as error:
            return error
        return request

    def _candidates(self, call: Call) -> _Admitted:
        request = read_request(call.arrays)
        check_limits(request.work, self._limits)
        check_work(request.work, self._description.grid.cells)
        return _Admitted(request.work, lambda flat: {LOG_PROBS.name: request.log_probs(flat, call.datatype)})

    def _trips(self, call: Call) -> _Admitted:
        trips = read_trips(call.arrays)
        check_trip_limits(trips, self._limits)
        check_trips(trips, self._description.grid.cells)
        work = trips.score_work(self._description.model.block_size, self._description.special.eot)
        return _Admitted(work, lambda flat: trip_outputs(sums_of_trips(flat, work.scored), work.scored))

    def _together(self, works: Sequence[ScoreWork]) -> Sequence[Floats | TeacherError]:
        """Each request's [C] answer. When memory ends, batches get smaller for good; what still fails, fails alone."""
        try:
            return answer_works(works, self._packer, self._engine.log_probs)
        except MemoryError as error:
            smaller = max(self._packer.token_budget // 2, self._packer.block_size)
            if smaller < self._packer.token_budget:
                self._packer = replace(self._packer, token_budget=smaller)
                return self._together(works)
            cause: Exception = error
        except Exception as error:
            cause = error
        if len(works) == 1:
            return [EngineFailure.from_cause(cause)]
        return [self._together([work])[0] for work in works]


def _written(request: _Admitted, flat: Floats | TeacherError) -> Arrays | TeacherError:
    return flat if isinstance(flat, TeacherError) else request.outputs(flat)
