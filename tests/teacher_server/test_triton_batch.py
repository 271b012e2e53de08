"""A dynamic batch without a Triton server: the oracle's numbers, and every mistake alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from teacher_server.artifact import load_artifact
from teacher_server.description import TeacherDescription
from teacher_server.engine import Engine
from teacher_server.errors import EngineFailure, InvalidRequest, TeacherError, TooLarge, WrongTeacher
from teacher_server.limits import Limits
from teacher_server.packing import PackedBatch
from teacher_server.rows import ScoreWork
from teacher_server.triton.batch import Call, DenseScorer
from tests.serving import tiny_artifact
from tests.teacher_server.scoring import (
    dense_arrays_of,
    oracle,
    tiny_engine,
    tiny_model,
    trip_arrays_of,
    trip_oracle,
    trips_of,
    work_of,
    works,
)

WRONG: dict[type[TeacherError], Call] = {
    WrongTeacher: Call({}, digest="0" * 64),
    InvalidRequest: Call(dense_arrays_of(work_of([[20]], [[[1, 2]]]))),  # PAD is no cell
    TooLarge: Call(dense_arrays_of(work_of([[1] * 12] * 50, [[[1, 2]] * 12] * 50, window=11))),
}


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> TeacherDescription:
    return tiny_artifact(tmp_path_factory.mktemp("teacher") / "artifact")


class SmallEngine:
    """Has memory for so many tokens."""

    def __init__(self, engine: Engine, tokens: int) -> None:
        self._engine, self._tokens = engine, tokens

    def log_probs(self, batch: PackedBatch) -> NDArray[np.float32]:
        if batch.row_tokens > self._tokens:
            raise MemoryError("full")
        return self._engine.log_probs(batch)


class PoisonedEngine:
    """Fails on every batch that holds one cell."""

    def __init__(self, engine: Engine, cell: int) -> None:
        self._engine, self._cell = engine, cell

    def log_probs(self, batch: PackedBatch) -> NDArray[np.float32]:
        if (batch.tokens == self._cell).any():
            raise ArithmeticError("poison")
        return self._engine.log_probs(batch)


def scorer(description: TeacherDescription, engine: object = None) -> DenseScorer:
    limits = Limits(max_row_tokens=1000)
    return DenseScorer(description, engine or tiny_engine(tiny_model()), limits, token_budget=64)  # type: ignore[arg-type]


def flat(answer: Mapping[str, NDArray[np.float32]] | TeacherError) -> NDArray[np.float32]:
    assert not isinstance(answer, TeacherError), answer
    return answer["LOG_PROBS"][np.isfinite(answer["LOG_PROBS"])]


def fits(work: ScoreWork) -> bool:
    return bool(work.scored.any())


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(works().filter(fits), min_size=1, max_size=4), st.data())
def test_calls_of_any_shape_get_the_oracles_numbers(
    description: TeacherDescription, asked: Sequence[ScoreWork], data: st.DataObject
) -> None:
    """Whatever wrong calls are among them."""
    calls: list[Call] = [Call(dense_arrays_of(work), description.digest) for work in asked]
    expected: list[ScoreWork | type[TeacherError]] = list(asked)
    for kind in data.draw(st.lists(st.sampled_from(list(WRONG)), max_size=3)):
        place = data.draw(st.integers(0, len(calls)))
        calls.insert(place, WRONG[kind])
        expected.insert(place, kind)
    answers = scorer(description).answers(calls)
    for want, answer in zip(expected, answers, strict=True):
        if isinstance(want, ScoreWork):
            np.testing.assert_allclose(flat(answer), oracle(tiny_model(), want), atol=1e-5)
        else:
            assert type(answer) is want


def test_a_call_that_cannot_be_computed_fails_alone(description: TeacherDescription) -> None:
    good, bad = (work_of([[cell, 2]], [[[1, 2], [3, 4]]]) for cell in (5, 6))
    calls = [Call(dense_arrays_of(work)) for work in (good, bad, good)]
    engine = PoisonedEngine(tiny_engine(tiny_model()), cell=6)
    first, failed, last = scorer(description, engine).answers(calls)
    assert isinstance(failed, EngineFailure)
    for answer in (first, last):
        np.testing.assert_allclose(flat(answer), oracle(tiny_model(), good), atol=1e-5)


@pytest.mark.parametrize(("room", "served"), [(63, True), (30, True), (12, True), (5, False)])
def test_when_memory_ends_batches_get_smaller(description: TeacherDescription, room: int, served: bool) -> None:
    work = work_of([[cell] * 11 for cell in range(9)], [[[1, 2]]] * 9)
    small = work_of([[1, 2]], [[[1, 2]]])
    calls = [Call(dense_arrays_of(each)) for each in (work, small)]
    answers = scorer(description, SmallEngine(tiny_engine(tiny_model()), room)).answers(calls)
    assert isinstance(answers[0], EngineFailure) == (not served)
    for want, answer in zip((work, small), answers, strict=True):
        if not isinstance(answer, EngineFailure):
            np.testing.assert_allclose(flat(answer), oracle(tiny_model(), want), atol=1e-5)
    assert not isinstance(answers[1], TeacherError)


def test_whole_trips_beside_candidates(description: TeacherDescription) -> None:
    work, trips = work_of([[5, 2]], [[[1, 2], [3, 4]]]), [[1, 2, 3], [4], [5] * 20]
    of_trips = trip_arrays_of(trips_of(trips))
    calls = [
        Call(dense_arrays_of(work)),
        Call(of_trips, of_trips=True),
        Call(of_trips | {"HISTORY_LENGTH": of_trips["HISTORY_LENGTH"] + 99}, of_trips=True),
        Call(trip_arrays_of(trips_of([[7] * 11] * 100)), of_trips=True),
    ]
    scored, judged, invalid, too_large = scorer(description).answers(calls)
    np.testing.assert_allclose(flat(scored), oracle(tiny_model(), work), atol=1e-5)
    assert not isinstance(judged, TeacherError)
    sums, counts = trip_oracle(tiny_model(), trips)
    np.testing.assert_allclose(judged["LOG_LIKELIHOOD"][:, 0], sums, rtol=1e-6)
    assert judged["TOKEN_COUNT"][:, 0].tolist() == counts
    assert isinstance(invalid, InvalidRequest)
    assert isinstance(too_large, TooLarge)


def test_half_precision_is_asked_for_by_name(description: TeacherDescription) -> None:
    arrays = dense_arrays_of(work_of([[5]], [[[1, 2]]]))
    half, full, neither = scorer(description).answers([Call(arrays, datatype=t) for t in ("FP16", "FP32", "BF16")])
    assert not isinstance(half, TeacherError)
    assert half["LOG_PROBS"].dtype == np.float16
    np.testing.assert_allclose(flat(half), flat(full), atol=1e-2)
    assert isinstance(neither, InvalidRequest)


def test_nothing_but_wrong_calls(description: TeacherDescription) -> None:
    assert scorer(description).answers([]) == []
    assert [type(answer) for answer in scorer(description).answers(list(WRONG.values()))] == list(WRONG)


def test_the_tiny_artifact_is_the_tiny_model(tmp_path: Path) -> None:
    """What lets these tests, and those against a real server, use the oracle."""
    tiny_artifact(tmp_path / "t")
    weights = load_artifact(tmp_path / "t").state_dict
    for name, tensor in tiny_model().state_dict().items():
        if name != "lm_head.weight":
            np.testing.assert_array_equal(weights[name].numpy(), tensor.numpy())
