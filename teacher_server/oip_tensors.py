"""Tensors of the Open Inference Protocol, as a client declares and sends them -> arrays. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_server.errors import InvalidRequest
from teacher_server.rows import Tokens

DATATYPE, DTYPE = "INT32", np.dtype("<i4")  # of every input
NAMES = {"f2": "FP16", "f4": "FP32", "f8": "FP64", "i4": "INT32"}  # of every output, by numpy's
MAX_RANK = 3
CHUNK = 65_536  # numbers converted at once: between two chunks another thread may run


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Tokens:
    """The array in raw little-endian bytes, in row-major order. Raises InvalidRequest unless they fit the shape."""
    size = _size(name, datatype, shape)
    if len(data) != size * DTYPE.itemsize:
        raise InvalidRequest(
            f"input {name} has {len(data)} bytes, but its shape {list(shape)} needs {size * DTYPE.itemsize}"
        )
    return np.frombuffer(data, DTYPE).reshape(shape)


def from_numbers(name: str, datatype: str, shape: Sequence[int], numbers: Sequence[int]) -> Tokens:
    """The array of these int32 numbers, in row-major order. Raises InvalidRequest unless they fit the shape."""
    size = _size(name, datatype, shape)
    if len(numbers) != size:
        raise InvalidRequest(f"input {name} has {len(numbers)} numbers, but its shape {list(shape)} needs {size}")
    array = np.empty(size, DTYPE)
    for start in range(0, size, CHUNK):
        array[start : start + CHUNK] = numbers[start : start + CHUNK]
    return array.reshape(shape)


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name of an output's type."""
    return NAMES[array.dtype.str[1:]]


def _size(name: str, datatype: str, shape: Sequence[int]) -> int:
    """How many numbers the declaration promises."""
    if datatype != DATATYPE:
        raise InvalidRequest(f"input {name} is {datatype or 'of no datatype'}, but must be {DATATYPE}")
    if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1:
        raise InvalidRequest(f"input {name} has shape {list(shape)[:8]}: use 1 to {MAX_RANK} dimensions of at least 1")
    return math.prod(shape)
