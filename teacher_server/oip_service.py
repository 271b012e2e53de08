"""The service as one model of the Open Inference Protocol, whatever carries it: what it tells, what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from teacher_server.dense import (
    INPUTS,
    LOG_PROBS,
    OUTPUTS,
    Array,
    answer_dtype,
    asks_of_trips,
    read_request,
    read_trips,
    trip_outputs,
)
from teacher_server.errors import InvalidRequest
from teacher_server.metrics import Metrics
from teacher_server.offload import offloaded
from teacher_server.oip_model import config_parameters
from teacher_server.reports import State
from teacher_server.service import Answer, Service
from teacher_server.waiting import Priority

VERSION = "1"
PLATFORM = "lmtad"
PRIORITIES = {0: Priority.TRAINING, 1: Priority.TRAINING, 2: Priority.BULK}  # 0: the default; 1: the highest


@dataclass(frozen=True, eq=False)
class Inference:
    """A request."""

    inputs: Mapping[str, Array]  # int32, in the dense form
    parameters: Mapping[str, object] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()  # wanted; none: LOG_PROBS


@dataclass(frozen=True, eq=False)
class Inferred:
    """Its answer."""

    outputs: Mapping[str, Array]  # by name, little-endian; in LOG_PROBS -inf where there is no candidate
    parameters: Mapping[str, str | int]  # digest, queue_us, compute_us, truncated

    @property
    def nbytes(self) -> int:
        return _bytes_of(self.outputs)


_Answered = tuple[Answer, dict[str, Array]]  # with its outputs by name


@dataclass(frozen=True)
class _Parameters:
    """What a request may say beside its tensors."""

    digest: str = ""  # of the teacher that is meant; empty: any
    datatype: str = "FP32"  # of LOG_PROBS
    priority: int = 0
    timeout: int = 0  # microseconds that the caller will wait; 0: as long as it takes


@dataclass(frozen=True, eq=False)
class InferenceModel:
    """One service under a model's name. Its records are JSON in the protocol's own field names."""

    service: Service
    name: str = "teacher"
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def digest(self) -> str:
        return self.service.description.digest

    @property
    def ready(self) -> bool:
        return self.service.state is State.READY

    def metadata(self) -> dict[str, Any]:
        """The model's tensors; -1 is any size, and the first dimension is the batch's."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [{"name": i.name, "datatype": "INT32", "shape": [-1, *i.dims]} for i in INPUTS.values()],
            "outputs": [{"name": o.name, "datatype": o.datatype, "shape": [-1, *o.dims]} for o in OUTPUTS.values()],
        }

    def config(self) -> dict[str, Any]:
        """Limits and tensors as a Triton server would put them, and in `parameters` all that `Describe` says."""
        service = self.service
        parameters = config_parameters(service.description, service.compute_type, service.limits)
        return {
            "name": self.name,
            "platform": PLATFORM,
            "max_batch_size": service.limits.max_sequences,
            "input": [
                {"name": i.name, "data_type": "TYPE_INT32", "dims": list(i.dims), "optional": i.optional}
                for i in INPUTS.values()
            ],
            "output": [
                {"name": o.name, "data_type": f"TYPE_{o.datatype}", "dims": list(o.dims)} for o in OUTPUTS.values()
            ],
            "dynamic_batching": {"priority_levels": 2, "default_priority_level": 1},
            "parameters": {name: {"string_value": value} for name, value in parameters.items()},
        }

    async def infer(self, request: Inference, remaining: float | None = None) -> Inferred:
        """The answer. `remaining`: seconds that the caller will still wait, if its protocol says so.

        Raises InvalidRequest, and all that the service raises.
        """
        with self.service.reading():
            answering = self._judged if asks_of_trips(request.outputs) else self._scored
            parameters = _read_parameters(request.parameters)
        answer, outputs = await answering(request.inputs, parameters, _shorter(remaining, parameters.timeout))
        told = {name: getattr(answer, name) for name in ("digest", "queue_us", "compute_us", "truncated")}
        return Inferred({name: outputs[name] for name in request.outputs or outputs}, told)

    async def _scored(self, inputs: Mapping[str, Array], parameters: _Parameters, timeout: float | None) -> _Answered:
        size = _bytes_of(inputs)
        with self.service.reading():
            dense = await offloaded(size, read_request, inputs)
        priority = PRIORITIES[parameters.priority]
        scores = await self.service.score(dense.work, parameters.digest, priority=priority, timeout=timeout)
        log_probs = await offloaded(size, dense.log_probs, scores.log_probs, parameters.datatype)
        return scores, {LOG_PROBS.name: log_probs}

    async def _judged(self, inputs: Mapping[str, Array], parameters: _Parameters, timeout: float | None) -> _Answered:
        with self.service.reading():
            trips = await offloaded(_bytes_of(inputs), read_trips, inputs)
        priority = PRIORITIES[parameters.priority]
        found = await self.service.likelihood(trips, parameters.digest, priority=priority, timeout=timeout)
        return found, trip_outputs(found.log_likelihoods, found.token_counts)


def _bytes_of(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _read_parameters(given: Mapping[str, object]) -> _Parameters:
    known = asdict(_Parameters())
    for name, value in given.items():
        if name not in known:
            raise InvalidRequest(f"unknown parameter {name!r}: use {', '.join(known)}")
        if type(value) is not type(known[name]):
            kind = "a text" if isinstance(known[name], str) else "a whole number"
            raise InvalidRequest(f"parameter {name} is {value!r}, but must be {kind}")
    parameters = _Parameters(**known | dict(given))
    answer_dtype(parameters.datatype)
    if parameters.priority not in PRIORITIES:
        raise InvalidRequest(f"parameter priority is {parameters.priority}: use 1 (training) or 2 (bulk)")
    if parameters.timeout < 0:
        raise InvalidRequest(f"parameter timeout is {parameters.timeout}: use microseconds, or 0 for none")
    return parameters


def _shorter(remaining: float | None, timeout_us: int) -> float | None:
    waits = [] if remaining is None else [remaining]
    return min([*waits, timeout_us / 1e6] if timeout_us else waits, default=None)
