"""Dense requests -> answers, many at a time: what a Triton server's dynamic batch is put through.

Requests of any shapes share rows and batches, as in our own server; one that is wrong, or that cannot be computed,
fails alone. Knows nothing of Triton, so that it can be tested without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from teacher_server.admission import check_limits, check_row_tokens, check_work
from teacher_server.dense import DenseRequest, answer_dtype, read_request
from teacher_server.description import TeacherDescription
from teacher_server.engine import Engine
from teacher_server.errors import EngineFailure, TeacherError, WrongTeacher
from teacher_server.limits import Limits
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import Floats

Array = NDArray[Any]


@dataclass(frozen=True)
class Call:
    """One request as it arrives."""

    arrays: Mapping[str, Array]
    digest: str = ""  # of the teacher that is meant; empty: any
    datatype: str = "FP32"  # of the answer


class DenseScorer:
    """One teacher that answers lists of calls."""

    def __init__(self, description: TeacherDescription, engine: Engine, limits: Limits, token_budget: int) -> None:
        """`token_budget`: padded tokens that are computed at once."""
        self._description, self._engine, self._limits = description, engine, limits
        special = description.special
        self._packer = Packer(description.model.block_size, special.sot, special.pad, token_budget)

    def answers(self, calls: Sequence[Call]) -> list[Array | TeacherError]:
        """Each call's LOG_PROBS, [B, n, K], or what is wrong with it."""
        requests = [self._admitted(call) for call in calls]
        flat = iter(self._together([request for request in requests if isinstance(request, DenseRequest)]))
        return [
            _dense(request, next(flat), call.datatype) if isinstance(request, DenseRequest) else request
            for call, request in zip(calls, requests, strict=True)
        ]

    def _admitted(self, call: Call) -> DenseRequest | TeacherError:
        try:
            if call.digest and call.digest != self._description.digest:
                raise WrongTeacher(f"the request is for teacher {call.digest}, but this is {self._description.digest}")
            answer_dtype(call.datatype)
            request = read_request(call.arrays)
            check_limits(request.work, self._limits)
            check_work(request.work, self._description.grid.cells)
            check_row_tokens(request.work, self._description.model.block_size, self._limits)
        except TeacherError as error:
            return error
        return request

    def _together(self, requests: Sequence[DenseRequest]) -> Sequence[Floats | TeacherError]:
        """Each request's [C] answer. When memory ends, batches get smaller for good; what still fails, fails alone."""
        try:
            return answer_works([request.work for request in requests], self._packer, self._engine.log_probs)
        except MemoryError as error:
            smaller = max(self._packer.token_budget // 2, self._packer.block_size)
            if smaller < self._packer.token_budget:
                self._packer = replace(self._packer, token_budget=smaller)
                return self._together(requests)
            cause: Exception = error
        except Exception as error:
            cause = error
        if len(requests) == 1:
            return [EngineFailure.from_cause(cause)]
        return [self._together([request])[0] for request in requests]


def _dense(request: DenseRequest, flat: Floats | TeacherError, datatype: str) -> Array | TeacherError:
    return flat if isinstance(flat, TeacherError) else request.log_probs(flat, datatype)
