"""The dense form of a request, for clients that know tensors but not our wire: int32 arrays <-> score work.

Pure numpy. Letters: B histories, L tokens of the longest one, n scored positions of the one that has most, K candidates
of the position that has most. Row b's scored positions are its last `SCORED[b]` ones, in order, in slots
0..SCORED[b] - 1 of n; later slots have the count 0. What lies behind a length or a count is padding: any number.

The outputs that a request wants say what it asks: LOG_PROBS of candidates, or of whole trips, for which there are
nothing but their cells, LOG_LIKELIHOOD and TOKEN_COUNT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_server.errors import InvalidRequest
from teacher_server.rows import Floats, ScoreWork, Tokens
from teacher_server.trips import TripWork

Array = NDArray[Any]
DATATYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}  # of LOG_PROBS


@dataclass(frozen=True)
class Input:
    """One tensor of the request, always int32."""

    name: str
    dims: tuple[int, ...]  # after the batch dimension; -1: any size
    default: int | None = None  # what it is where it is left out; None: it must be there
    of_trips: bool = False  # also where whole trips are asked about

    @property
    def optional(self) -> bool:
        """Whether there are requests without it."""
        return not self.of_trips


@dataclass(frozen=True)
class Output:
    """One tensor of the answer."""

    name: str
    datatype: str
    dims: tuple[int, ...]  # after the batch dimension; -1: any size


HISTORY = Input("HISTORY", (-1,), of_trips=True)  # [B, L] cells, without SOT
HISTORY_LENGTH = Input("HISTORY_LENGTH", (1,), of_trips=True)  # [B, 1] each in 1..L
SCORED = Input("SCORED", (1,), default=1)  # [B, 1] last positions that are scored, each in 0..n
WINDOW = Input("WINDOW", (1,), default=0)  # [B, 1] last tokens that a position sees; 0: all
CANDIDATES = Input("CANDIDATES", (-1, -1))  # [B, n, K] cells, or [B, K] where n = 1
CANDIDATE_COUNT = Input("CANDIDATE_COUNT", (-1,))  # [B, n] each in 0..K
INPUTS = {i.name: i for i in (HISTORY, HISTORY_LENGTH, SCORED, WINDOW, CANDIDATES, CANDIDATE_COUNT)}
TRIP_INPUTS = {name: known for name, known in INPUTS.items() if known.of_trips}
LOG_PROBS = Output("LOG_PROBS", "FP32", (-1, -1))  # [B, n, K]; FP16 by a parameter
LOG_LIKELIHOOD = Output("LOG_LIKELIHOOD", "FP64", (1,))  # [B, 1] sum over tokens 1..EOT
TOKEN_COUNT = Output("TOKEN_COUNT", "INT32", (1,))  # [B, 1] how many these are
OUTPUTS = {o.name: o for o in (LOG_PROBS, LOG_LIKELIHOOD, TOKEN_COUNT)}


@dataclass(frozen=True, eq=False)
class DenseRequest:
    """A request's work, and where in the dense answer its numbers belong."""

    work: ScoreWork
    filled: NDArray[np.bool_]  # [B, n, K] slots that hold a candidate

    def log_probs(self, flat: Floats, datatype: str = "FP32") -> Array:
        """[B, n, K] from the work's [C] answer: -inf in the padding and, also in FP16, nowhere else.

        Raises InvalidRequest for a datatype other than FP32 and FP16.
        """
        dtype = answer_dtype(datatype)
        dense = np.full(self.filled.shape, -np.inf, dtype)
        dense[self.filled] = np.maximum(flat, np.finfo(dtype).min)
        return dense


def answer_dtype(datatype: str) -> np.dtype[Any]:
    """The little-endian type of an answer. Raises InvalidRequest for an unknown one."""
    if datatype not in DATATYPES:
        raise InvalidRequest(f"{LOG_PROBS.name} cannot be {datatype!r}: use {' or '.join(DATATYPES)}")
    return DATATYPES[datatype]


def asks_of_trips(outputs: Collection[str]) -> bool:
    """Whether a request that wants these outputs is about whole trips; none are LOG_PROBS. Raises InvalidRequest."""
    for name in outputs:
        if name not in OUTPUTS:
            raise InvalidRequest(f"unknown output {name!r}: use {LOG_PROBS.name}, or {' and '.join(list(OUTPUTS)[1:])}")
    if LOG_PROBS.name in outputs and set(outputs) != {LOG_PROBS.name}:
        raise InvalidRequest(
            f"{LOG_PROBS.name} and what is about whole trips cannot be one request: ask for them apart"
        )
    return bool(outputs) and LOG_PROBS.name not in outputs


def read_trips(arrays: Mapping[str, Array]) -> TripWork:
    """The trips that arrays, by name, hold. Raises InvalidRequest naming the tensor and the place."""
    _check_names(arrays, TRIP_INPUTS)
    history = _array(arrays, HISTORY)
    lengths = _column(arrays, HISTORY_LENGTH, len(history), 1, history.shape[1], of=HISTORY)
    return TripWork(history[np.arange(history.shape[1]) < lengths[:, None]], lengths.astype(np.int64))


def trip_outputs(log_likelihoods: NDArray[np.float64], token_counts: NDArray[np.int64]) -> dict[str, Array]:
    """The answer about whole trips by name, [B, 1] each."""
    return {
        LOG_LIKELIHOOD.name: log_likelihoods.astype("<f8")[:, None],
        TOKEN_COUNT.name: token_counts.astype("<i4")[:, None],
    }


def read_request(arrays: Mapping[str, Array]) -> DenseRequest:
    """The work that arrays, by name, ask for. Raises InvalidRequest naming the tensor and the place.

    Checks everything that only the dense form has; whether tokens are cells, and how much may be asked for, is for
    the checks of all requests.
    """
    _check_names(arrays, INPUTS)
    history, candidates = _array(arrays, HISTORY), _candidates(arrays)
    batch, slots, width = candidates.shape
    if len(history) != batch:
        raise InvalidRequest(f"HISTORY has {len(history)} rows, but CANDIDATES has {batch}")
    lengths = _column(arrays, HISTORY_LENGTH, batch, 1, history.shape[1])
    scored = _column(arrays, SCORED, batch, 0, slots)
    windows = _column(arrays, WINDOW, batch, 0, np.iinfo(np.int32).max)
    counts = _counts(arrays, scored, slots, width)
    filled = np.arange(width) < counts[..., None]
    work = ScoreWork(
        tokens=history[np.arange(history.shape[1]) < lengths[:, None]],
        lengths=lengths.astype(np.int64),
        scored=scored.astype(np.int64),
        windows=windows.astype(np.int64),
        candidates=candidates[filled],
        candidate_counts=counts[np.arange(slots) < scored[:, None]].astype(np.int64),
    )
    return DenseRequest(work, filled)


def _check_names(arrays: Mapping[str, Array], inputs: Mapping[str, Input]) -> None:
    for name in arrays:
        if name not in inputs:
            raise InvalidRequest(f"unknown input {name!r}: use {', '.join(inputs)}")
    for name, known in inputs.items():
        if name not in arrays and known.default is None:
            raise InvalidRequest(f"input {name} is missing")


def _array(arrays: Mapping[str, Array], known: Input) -> Tokens:
    """The input with its batch dimension, of which no dimension is empty."""
    array, dims = arrays[known.name], (-1, *known.dims)
    if array.dtype != np.int32:
        raise InvalidRequest(f"{known.name} is {array.dtype}, but must be int32")
    fits = len(array.shape) == len(dims) and all(d in (-1, s) for d, s in zip(dims, array.shape, strict=True))
    if not fits or 0 in array.shape:
        raise InvalidRequest(
            f"{known.name} has shape {_shown(array.shape)}, but must be {_shown(dims)} (-1: any size but 0)"
        )
    return array


def _candidates(arrays: Mapping[str, Array]) -> Tokens:
    given = arrays[CANDIDATES.name]
    return _array({CANDIDATES.name: given[:, None] if given.ndim == 2 else given}, CANDIDATES)


def _column(
    arrays: Mapping[str, Array], known: Input, batch: int, lowest: int, highest: int, of: Input = CANDIDATES
) -> Tokens:
    """[B] values of an input of one number a row, or its default."""
    if known.name not in arrays:
        return np.full(batch, known.default or 0, np.int32)
    column = _array(arrays, known)[:, 0]
    if len(column) != batch:
        raise InvalidRequest(f"{known.name} has {len(column)} rows, but {of.name} has {batch}")
    _check_range(known.name, column, lowest, np.full(batch, highest))
    return column


def _counts(arrays: Mapping[str, Array], scored: Tokens, slots: int, width: int) -> Tokens:
    """[B, n] candidates of each slot."""
    counts = _array(arrays, CANDIDATE_COUNT)
    if counts.shape != (len(scored), slots):
        raise InvalidRequest(
            f"CANDIDATE_COUNT has shape {_shown(counts.shape)}, but CANDIDATES needs {_shown((len(scored), slots))}"
        )
    # A slot that is not scored has no candidates: a count there means that the caller has put them elsewhere.
    _check_range(CANDIDATE_COUNT.name, counts, 0, np.where(np.arange(slots) < scored[:, None], width, 0))
    return counts


def _check_range(name: str, values: Tokens, lowest: int, highest: NDArray[np.int64]) -> None:
    """Raise InvalidRequest unless lowest <= values <= highest, of the values' shape."""
    wrong = (values < lowest) | (values > highest)
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        raise InvalidRequest(
            f"{name}[{', '.join(map(str, place))}] is {values[place]}: it must be in {lowest}..{highest[place]}"
        )


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
