"""A teacher that is a model of a Triton server, or of another that speaks the Open Inference Protocol, as ours does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from trainer.errors import BadInput, TeacherMismatch
from trainer.grid import Grid
from trainer.teacher.dense import DenseQuery, count_truncated, dense_parts, dense_query
from trainer.teacher.protocol import Answer, Description, Limits, Query
from trainer.teacher.security import Access
from trainer.teacher.split import ENVELOPE_BYTES, split_query
from trainer.teacher.status import FAILOVER, translated

CONNECT_S = 30.0
PROBE_S = 2.0  # how long the server may take to say who it is
RETRY_S = 0.2


class TritonTeacher:
    """One model of one server."""

    def __init__(
        self,
        target: str,
        model: str,
        *,
        deadline_s: float = 120.0,
        connect_s: float = CONNECT_S,
        access: Access | None = None,
    ) -> None:
        """Connects and reads the description. Raises TeacherUnavailable, TeacherMismatch or BadInput."""
        self._access = access or Access()
        # With the client's own channel settings: messages of any size.
        self._client = InferenceServerClient(target, creds=self._access.credentials)
        self._model, self._where = model, f"{target}/{model}"
        self._deadline_s = deadline_s
        try:
            self.description = description_of(self._wait_for_parameters(connect_s), self._where)
            self.description.check()
        except BaseException:
            self.close()
            raise

    def score(self, query: Query) -> Answer:
        room = self.description.limits.message_bytes - ENVELOPE_BYTES
        parts = (part for fits in split_query(query, self.description) for part in dense_parts(fits, room))
        log_probs = np.concatenate([self._score_part(part) for part in parts])
        return Answer(log_probs, count_truncated(query, self.description.block_size))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> TritonTeacher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score_part(self, query: Query) -> NDArray[np.float32]:
        if not len(query.candidates):
            return np.zeros(0, np.float32)
        dense = dense_query(query)
        return self._infer(dense)[dense.filled]

    def _infer(self, dense: DenseQuery) -> NDArray[np.float32]:
        """LOG_PROBS, [B, n, K], of the teacher that was described: the request names it."""
        digest = self.description.digest
        inputs = [_input(name, tensor) for name, tensor in dense.tensors.items()]
        with self._translating():
            result = self._client.infer(
                self._model,
                inputs,
                parameters={"digest": digest},
                client_timeout=self._deadline_s,
                headers=self._headers(),
            )
        # Triton's own answers name no teacher: there the request's digest alone is checked, by the model.
        told = result.get_response().parameters
        answered = told["digest"].string_param if "digest" in told else digest
        log_probs = result.as_numpy("LOG_PROBS")
        if answered != digest or log_probs is None or log_probs.shape != dense.filled.shape:
            shape = None if log_probs is None else log_probs.shape
            raise TeacherMismatch(
                f"asked teacher {digest[:16]} for {dense.filled.shape} log-probabilities, "
                f"got {shape} from {answered[:16]}"
            )
        return log_probs.astype(np.float32, copy=False)

    def _wait_for_parameters(self, connect_s: float) -> dict[str, str]:
        """The model's parameters, once it is ready. A server that is down may come back in time."""
        deadline = time.monotonic() + connect_s
        while True:
            try:
                return self._parameters()
            except InferenceServerException as error:
                if _code(error) not in FAILOVER or time.monotonic() > deadline:
                    raise translated(_code(error), error.message(), self._where) from None
            time.sleep(RETRY_S)

    def _parameters(self) -> dict[str, str]:
        config = self._client.get_model_config(self._model, headers=self._headers(), client_timeout=PROBE_S).config
        if not self._client.is_model_ready(self._model, headers=self._headers(), client_timeout=PROBE_S):
            raise InferenceServerException("it is there, but not ready", str(grpc.StatusCode.UNAVAILABLE))
        return {name: value.string_value for name, value in config.parameters.items()}

    def _headers(self) -> dict[str, str]:
        return dict(self._access.metadata())

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            raise translated(_code(error), error.message(), self._where) from None


def _input(name: str, tensor: NDArray[np.int32]) -> InferInput:
    made = InferInput(name, list(tensor.shape), "INT32")
    made.set_data_from_numpy(tensor)
    return made


def _code(error: InferenceServerException) -> grpc.StatusCode:
    """The status, which the client hands on as the text `StatusCode.NAME`."""
    name = str(error.status()).removeprefix("StatusCode.")
    return grpc.StatusCode[name] if name in grpc.StatusCode.__members__ else grpc.StatusCode.UNKNOWN


def description_of(parameters: Mapping[str, str], where: str) -> Description:
    try:
        limits = json.loads(parameters["limits"])
        return Description(
            digest=parameters["digest"],
            vocab_size=int(parameters["vocab_size"]),
            cells=int(parameters["cells"]),
            pad=int(parameters["pad"]),
            eot=int(parameters["eot"]),
            sot=int(parameters["sot"]),
            block_size=int(parameters["block_size"]),
            grid=Grid(**json.loads(parameters["grid"])),
            compute_type=parameters["compute_type"],
            limits=Limits(
                sequences=limits["max_sequences"],
                tokens=limits["max_tokens"],
                positions=limits["max_positions"],
                candidates=limits["max_candidates"],
                row_tokens=limits["max_row_tokens"],
                message_bytes=limits["max_message_bytes"],
            ),
        )
    except KeyError as error:
        raise BadInput(f"{where} is a model, but no teacher: it has no parameter {error}") from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where} is a model, but no teacher that this trainer understands: {error}") from None
