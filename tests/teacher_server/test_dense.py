"""The dense form of requests against ragged work, both ways, with anything at all in the padding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from teacher_server.dense import asks_of_trips, read_request, read_trips
from teacher_server.errors import InvalidRequest
from teacher_server.rows import ScoreWork
from tests.teacher_server.dense_clients import OF_TRIPS
from tests.teacher_server.scoring import dense_arrays_of, ragged_trips, trip_arrays_of, trips_of, work_of, works

JUNK = st.sampled_from([0, -1, 3, 2**31 - 1])


def fields(work: ScoreWork) -> dict[str, list[int]]:
    return {field.name: np.asarray(getattr(work, field.name)).tolist() for field in dataclasses.fields(ScoreWork)}


def small() -> dict[str, NDArray[np.int32]]:
    """Two histories of which 2 and 1 positions are scored, with up to 3 candidates."""
    return dense_arrays_of(work_of([[5, 6, 7], [8]], [[[1, 2, 3], [4, 5]], [[6, 7]]], window=2))


@given(works(), JUNK, st.integers(0, 2), st.integers(0, 2))
def test_dense_arrays_say_what_the_ragged_ones_say(work: ScoreWork, junk: int, slots: int, width: int) -> None:
    """Also with more slots and wider rows than any history needs."""
    arrays = dense_arrays_of(work, junk, slots, width)
    assert fields(read_request(arrays).work) == fields(work) | {"windows": arrays["WINDOW"][:, 0].tolist()}


@given(works(), JUNK, st.sampled_from(["FP32", "FP16"]))
def test_every_number_returns_to_its_candidate(work: ScoreWork, junk: int, datatype: str) -> None:
    request = read_request(dense_arrays_of(work, junk))
    flat = np.arange(len(work.candidates), dtype=np.float32)
    dense = request.log_probs(flat, datatype)
    assert dense.dtype == {"FP32": np.float32, "FP16": np.float16}[datatype]
    numbers, counts = iter(flat), iter(work.candidate_counts)
    for row, scored in zip(dense, work.scored, strict=True):
        for slot, position in enumerate(row):
            count = next(counts) if slot < scored else 0
            assert position[:count].tolist() == [next(numbers) for _ in range(count)]
            assert np.isneginf(position[count:]).all()


def test_a_very_unlikely_candidate_is_no_padding_in_half_precision() -> None:
    request = read_request(small())
    dense = request.log_probs(np.full(7, -1e6, np.float32), "FP16")
    assert np.isfinite(dense[request.filled]).all()


def test_what_is_left_out_has_its_default() -> None:
    arrays = small()
    del arrays["SCORED"], arrays["WINDOW"]
    arrays["CANDIDATE_COUNT"][0, 1] = 0
    work = read_request(arrays).work
    assert work.scored.tolist() == [1, 1]
    assert work.windows.tolist() == [0, 0]


def test_one_position_needs_no_dimension_of_its_own() -> None:
    arrays = dense_arrays_of(work_of([[5, 6], [7]], [[[1, 2]], [[3, 4, 5]]]))
    flat = {**arrays, "CANDIDATES": arrays["CANDIDATES"][:, 0]}
    assert fields(read_request(flat).work) == fields(read_request(arrays).work)
    assert read_request(flat).log_probs(np.zeros(5, np.float32)).shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HISTORY", None, "input HISTORY is missing"),
        ("CANDIDATES", None, "input CANDIDATES is missing"),
        ("HISTORIES", [[1]], "unknown input 'HISTORIES'"),
        ("HISTORY", [1, 2], r"HISTORY has shape \[2\], but must be \[-1, -1\]"),
        ("HISTORY", [[], []], r"HISTORY has shape \[2, 0\]"),
        ("HISTORY", [[1, 2, 3]], "HISTORY has 1 rows, but CANDIDATES has 2"),
        ("HISTORY_LENGTH", [3, 1], r"HISTORY_LENGTH has shape \[2\], but must be \[-1, 1\]"),
        ("HISTORY_LENGTH", [[3, 3], [1, 1]], r"HISTORY_LENGTH has shape \[2, 2\]"),
        ("HISTORY_LENGTH", [[3]], "HISTORY_LENGTH has 1 rows, but CANDIDATES has 2"),
        ("HISTORY_LENGTH", [[4], [1]], r"HISTORY_LENGTH\[0\] is 4: it must be in 1..3"),
        ("HISTORY_LENGTH", [[3], [0]], r"HISTORY_LENGTH\[1\] is 0: it must be in 1..3"),
        ("SCORED", [[3], [1]], r"SCORED\[0\] is 3: it must be in 0..2"),
        ("SCORED", [[2], [-1]], r"SCORED\[1\] is -1: it must be in 0..2"),
        ("WINDOW", [[0], [-7]], r"WINDOW\[1\] is -7"),
        ("CANDIDATES", [1, 2], r"CANDIDATES has shape \[2\], but must be \[-1, -1, -1\]"),
        ("CANDIDATES", np.zeros((2, 2, 0), np.int32), r"CANDIDATES has shape \[2, 2, 0\]"),
        ("CANDIDATE_COUNT", [[3, 2]], r"CANDIDATE_COUNT has shape \[1, 2\], but CANDIDATES needs \[2, 2\]"),
        ("CANDIDATE_COUNT", [[3, 4], [2, 0]], r"CANDIDATE_COUNT\[0, 1\] is 4: it must be in 0..3"),
        ("CANDIDATE_COUNT", [[3, -1], [2, 0]], r"CANDIDATE_COUNT\[0, 1\] is -1: it must be in 0..3"),
        ("CANDIDATE_COUNT", [[3, 2], [2, 1]], r"CANDIDATE_COUNT\[1, 1\] is 1: it must be in 0..0"),
        ("HISTORY", np.zeros((2, 3)), "HISTORY is float64, but must be int32"),
        ("CANDIDATE_COUNT", np.zeros((2, 2), np.int64), "CANDIDATE_COUNT is int64, but must be int32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, value: object, message: str) -> None:
    arrays = small()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value if isinstance(value, np.ndarray) else np.array(value, np.int32)
    with pytest.raises(InvalidRequest, match=message):
        read_request(arrays)


def test_an_answer_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="LOG_PROBS cannot be 'BF16': use FP32 or FP16"):
        read_request(small()).log_probs(np.zeros(7, np.float32), "BF16")


@given(ragged_trips(), JUNK)
def test_whole_trips_are_their_cells(trips: list[list[int]], junk: int) -> None:
    found = read_trips(trip_arrays_of(trips_of(trips), junk))
    assert [cells.tolist() for cells in np.split(found.tokens, np.cumsum(found.lengths)[:-1])] == trips


def test_what_whole_trips_have_no_use_for_is_refused() -> None:
    arrays = trip_arrays_of(trips_of([[1, 2], [3]]))
    for wrong, words in (
        (arrays | {"WINDOW": arrays["HISTORY_LENGTH"]}, "unknown input 'WINDOW': use HISTORY, HISTORY_LENGTH"),
        ({"HISTORY": arrays["HISTORY"]}, "input HISTORY_LENGTH is missing"),
        (arrays | {"HISTORY_LENGTH": np.array([[2]], np.int32)}, "HISTORY_LENGTH has 1 rows, but HISTORY has 2"),
        (arrays | {"HISTORY_LENGTH": np.array([[2], [3]], np.int32)}, r"HISTORY_LENGTH\[1\] is 3: it must be in 1..2"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            read_trips(wrong)


@pytest.mark.parametrize(
    ("outputs", "of_trips"), [((), False), (("LOG_PROBS",) * 2, False), (("TOKEN_COUNT",), True), (OF_TRIPS, True)]
)
def test_outputs_say_what_is_asked(outputs: tuple[str, ...], of_trips: bool) -> None:
    assert asks_of_trips(outputs) is of_trips


def test_candidates_and_whole_trips_are_two_requests() -> None:
    with pytest.raises(InvalidRequest, match="ask for them apart"):
        asks_of_trips(["LOG_LIKELIHOOD", "LOG_PROBS"])
