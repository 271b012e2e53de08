"""REST bodies <-> inferences: JSON numbers or, many times faster, the protocol's binary data behind the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from teacher_server.dense import Array
from teacher_server.errors import InvalidRequest
from teacher_server.oip_service import VERSION, Inference, Inferred
from teacher_server.oip_tensors import CHUNK, datatype_of, from_bytes, from_numbers
from teacher_server.rest_body import Body
from teacher_server.rest_models import InferRequest, InputTensor


@dataclass(frozen=True, eq=False)
class RestInference:
    """A request and the form of its answer."""

    inference: Inference
    id: str
    binary: bool  # the answer's numbers as binary data
    exceptions: Mapping[str, bool]  # the same, of outputs that say so themselves


def read_inference(body: Body) -> RestInference:
    """The request in a body. Raises InvalidRequest."""
    try:
        message = InferRequest.model_validate_json(body.json)
    except ValidationError as error:
        raise InvalidRequest(_first(error)) from None
    parameters = dict(message.parameters)
    binary = parameters.pop("binary_data_output", False)
    if not isinstance(binary, bool):
        raise InvalidRequest(f"parameter binary_data_output is {binary!r}, but must be true or false")
    outputs = tuple(output.name for output in message.outputs)
    told = {output.name: output.parameters.binary_data for output in message.outputs}
    exceptions = {name: choice for name, choice in told.items() if choice is not None}
    return RestInference(Inference(_arrays(message, body.binary), parameters, outputs), message.id, binary, exceptions)


def write_answer(request: RestInference, model_name: str, answer: Inferred) -> tuple[bytes, int | None]:
    """The answer's body and, for binary data, how many bytes of it are JSON."""
    binary = {name: request.exceptions.get(name, request.binary) for name in answer.outputs}
    record = {
        "model_name": model_name,
        "model_version": VERSION,
        **({"id": request.id} if request.id else {}),
        "parameters": answer.parameters,
    }
    outputs = b",".join(_output(name, array, binary[name]) for name, array in answer.outputs.items())
    text = b"".join([to_json(record).removesuffix(b"}"), b',"outputs":[', outputs, b"]}"])
    raw = [array.tobytes() for name, array in answer.outputs.items() if binary[name]]
    return b"".join([text, *raw]), len(text) if raw else None


def _output(name: str, array: Array, binary: bool) -> bytes:
    """An output's record; its numbers are put before the record's end."""
    record = {"name": name, "datatype": datatype_of(array), "shape": array.shape}
    if binary:
        return to_json(record | {"parameters": {"binary_data_size": array.nbytes}})
    return b"".join([to_json(record).removesuffix(b"}"), b',"data":[', *_numbers(array), b"]}"])


def _arrays(message: InferRequest, binary: memoryview) -> dict[str, Array]:
    """The inputs by name; binary data lies in their order. Raises InvalidRequest."""
    arrays: dict[str, Array] = {}
    for tensor in message.inputs:
        if tensor.name in arrays:
            raise InvalidRequest(f"input {tensor.name} is there twice")
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise InvalidRequest(f"input {tensor.name} must have either data or the parameter binary_data_size")
        if size is None:
            arrays[tensor.name] = from_numbers(tensor.name, tensor.datatype, tensor.shape, _flat(tensor))
        else:
            arrays[tensor.name] = from_bytes(tensor.name, tensor.datatype, tensor.shape, binary[:size])
            binary = binary[size:]
    if binary:
        raise InvalidRequest(f"{len(binary)} bytes of binary data belong to no input")
    return arrays


def _flat(tensor: InputTensor) -> list[int]:
    """The numbers in row-major order. Raises InvalidRequest for lists nested otherwise than the shape."""
    numbers: list[Any] = tensor.data or []
    sizes = iter([*tensor.shape, *[-1] * 3])
    expected = next(sizes)
    nested = False
    while numbers and isinstance(numbers[0], list):
        width = next(sizes)
        if (not nested and len(numbers) != expected) or any(len(row) != width for row in numbers):
            raise InvalidRequest(f"input {tensor.name}: its lists are not nested as its shape {tensor.shape} says")
        numbers, nested = list(chain.from_iterable(numbers)), True
    return numbers


def _numbers(array: Array) -> Iterator[bytes]:
    """A JSON list without its brackets, where -inf, which JSON has no number for, is null."""
    flat = array.ravel()
    for start in range(0, flat.size, CHUNK):
        if start:
            yield b","
        yield to_json(flat[start : start + CHUNK].tolist(), inf_nan_mode="null")[1:-1]


def _first(error: ValidationError) -> str:
    """The deepest place where the body is wrong, in one line."""
    found = max(
        error.errors(include_url=False, include_context=False, include_input=False), key=lambda e: len(e["loc"])
    )
    # Parts with brackets name the form of a list that was tried, not a place.
    place = ".".join(str(part) for part in found["loc"] if "[" not in str(part))
    return f"{place}: {found['msg']}" if place else found["msg"]
