"""The service, with a real engine and batcher under it and no door above."""

from __future__ import annotations

import asyncio
import dataclasses
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from teacher_server.batcher import Batcher
from teacher_server.description import TeacherDescription
from teacher_server.errors import (
    EngineFailure,
    InvalidRequest,
    NotReady,
    Overloaded,
    TeacherError,
    TooLarge,
    WrongTeacher,
)
from teacher_server.limits import Limits
from teacher_server.rows import ScoreWork
from teacher_server.service import Service, State
from teacher_server.vocabulary import Grid
from tests.teacher_server.scoring import (
    BLOCK_SIZE,
    CELLS,
    SPECIAL,
    oracle,
    packer,
    tiny_engine,
    tiny_model,
    trip_oracle,
    trips_of,
    work_of,
)

MODEL = tiny_model()
DIGEST = "ab" * 32
GRID = Grid(0.0, 3.5, 0.0, 4.5, 1.0, 1.0, 4, 5)
LIMITS = Limits(max_sequences=4, max_tokens=60, max_positions=30, max_candidates=50, max_row_tokens=80)
GOOD = work_of([[1, 2, 3], [4, 5]], [[[6, 7], [8, 9, 10]], [[11, 12]]], window=2)


def service(compute: Callable[..., Any] | None = None) -> Service:
    assert GRID.cells == CELLS
    batcher = Batcher(compute or tiny_engine(MODEL).log_probs, packer(), 10_000)
    description = TeacherDescription(MODEL.config, SPECIAL, GRID, {}, DIGEST)
    return Service(description, "float32", batcher, LIMITS)


def run(body: Callable[[Service], Awaitable[None]]) -> None:
    async def whole() -> None:
        teacher = service()
        await teacher.warm_up()
        try:
            await body(teacher)
        finally:
            await teacher.drain(10)

    asyncio.run(whole())


def test_answers_with_log_probs_and_who_answered() -> None:
    async def body(teacher: Service) -> None:
        for digest in ("", DIGEST):
            scores = await teacher.score(GOOD, digest)
            np.testing.assert_allclose(scores.log_probs, oracle(MODEL, GOOD), atol=1e-5)
            assert (scores.digest, scores.truncated) == (DIGEST, 0)
            assert scores.compute_us > 0
        long = work_of([[1] * (BLOCK_SIZE + 1)], [[[1, 2]] * 3])
        assert (await teacher.score(long)).truncated == 2

    run(body)


def test_answers_with_likelihoods_and_who_answered() -> None:
    async def body(teacher: Service) -> None:
        trips = [[1, 2, 3], [4] * (BLOCK_SIZE + 1)]
        found = await teacher.likelihood(trips_of(trips), DIGEST)
        sums, counts = trip_oracle(MODEL, trips)
        np.testing.assert_allclose(found.log_likelihoods, sums, rtol=1e-6)
        assert (found.token_counts.tolist(), found.digest, found.truncated) == (counts, DIGEST, 1)

    run(body)


@pytest.mark.parametrize(
    ("trips", "message"),
    [
        ([[1]] * 5, "5 trips, and 4 are allowed"),
        ([[1] * 61], "61 tokens, and 60"),
        ([[1] * 15, [2] * 15], "32 scored positions .*, and 30"),
    ],
)
def test_too_many_trips_are_refused_with_the_limit(trips: list[list[int]], message: str) -> None:
    async def body(teacher: Service) -> None:
        with pytest.raises(TooLarge, match=message):
            await teacher.likelihood(trips_of(trips))

    run(body)


def changed(**arrays: Any) -> ScoreWork:
    """The good request with other arrays."""
    typed = {name: np.array(value, getattr(GOOD, name).dtype) for name, value in arrays.items()}
    return dataclasses.replace(GOOD, **typed)


INVALID = {
    "no history": (changed(lengths=[]), "lengths is empty"),
    "negative window": (changed(windows=[3, -1]), r"windows\[1\] is -1"),
    "windows missing": (changed(windows=[3]), "windows has 1 entries, but lengths has 2"),
    "scored is short": (changed(scored=[1]), "scored has 1 entries, but lengths has 2"),
    "a history of nothing": (changed(lengths=[5, 0]), r"lengths\[1\] is 0"),
    "lengths too small": (changed(lengths=[2, 2]), "lengths adds up to 4, but tokens has 5"),
    "lengths too large": (changed(lengths=[3, 2**32 - 1]), "but tokens has 5"),
    "scored beyond the history": (changed(scored=[4, 0]), r"scored\[0\] is 4"),
    "nothing scored": (changed(scored=[0, 0]), "nothing to score"),
    "counts missing": (changed(candidate_counts=[2, 3]), "scored adds up to 3, but candidate_counts has 2"),
    "negative count": (changed(candidate_counts=[2, -3, 8]), r"candidate_counts\[1\] is -3"),
    "counts too small": (changed(candidate_counts=[2, 3, 1]), "adds up to 6, but candidates has 7"),
    "counts too large": (changed(candidate_counts=[2, 3, 9]), "adds up to 14, but candidates has 7"),
    "PAD in a history": (changed(tokens=[1, 2, 3, SPECIAL.pad, 5]), r"tokens\[3\] \(history 1\) is 20"),
    "SOT in a history": (changed(tokens=[SPECIAL.sot, 2, 3, 4, 5]), r"tokens\[0\] \(history 0\) is 22"),
    "negative token": (changed(tokens=[1, 2, -1, 4, 5]), r"tokens\[2\] \(history 0\) is -1"),
    "token beyond the vocabulary": (changed(tokens=[1, 2, 3, 4, 60_000]), "no cell: cells are 0..19"),
    "EOT as a candidate": (
        changed(candidates=[6, 7, 8, 9, SPECIAL.eot, 11, 12]),
        r"candidates\[4\] \(scored position 1\) is 21",
    ),
    "negative candidate": (changed(candidates=[6, 7, 8, 9, 10, 11, -5]), r"\(scored position 2\) is -5"),
}


@pytest.mark.parametrize("kind", INVALID)
def test_what_can_never_work_is_named(kind: str) -> None:
    request, message = INVALID[kind]

    async def body(teacher: Service) -> None:
        with pytest.raises(InvalidRequest, match=message):
            await teacher.score(request)
        np.testing.assert_allclose((await teacher.score(GOOD)).log_probs, oracle(MODEL, GOOD), atol=1e-5)

    run(body)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (work_of([[1]] * 5, [[[1, 2]]] * 5), "5 histories, and 4 are allowed"),
        (work_of([[1] * 61], [[[1, 2]]]), "61 history tokens, and 60"),
        (work_of([[1] * 40], [[[1]] * 31]), "31 scored positions, and 30"),
        (work_of([[1]], [[[1] * 51]]), "51 candidates, and 50"),
        (work_of([[1] * 30], [[[1, 2]] * 21], window=3), "84 row tokens .*, and 80 are allowed: send fewer positions"),
    ],
)
def test_too_large_a_request_is_refused_with_the_limit(request_: ScoreWork, message: str) -> None:
    async def body(teacher: Service) -> None:
        with pytest.raises(TooLarge, match=message):
            await teacher.score(request_)

    run(body)


def test_a_request_at_the_limit_is_answered() -> None:
    work = work_of([[1] * 30], [[[1, 2]] * 20], window=3)  # 20 rows of SOT and 3 tokens

    async def body(teacher: Service) -> None:
        np.testing.assert_allclose((await teacher.score(work)).log_probs, oracle(MODEL, work), atol=1e-5)

    run(body)


def test_too_much_to_compute_is_refused_before_it_is_planned() -> None:
    """Few bytes on the wire may be much to compute: here every position has a row of its own."""
    n = 1_048_576
    ones = np.ones(n, np.int32)
    giant = ScoreWork(ones, np.array([n]), np.array([n]), np.array([BLOCK_SIZE - 2]), np.tile(ones, 2), np.full(n, 2))

    async def whole() -> None:
        batcher = Batcher(tiny_engine(MODEL).log_probs, packer(), 10_000)
        description = TeacherDescription(MODEL.config, SPECIAL, GRID, {}, DIGEST)
        teacher = Service(description, "float32", batcher, Limits(max_row_tokens=100_000))
        await teacher.warm_up()
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge, match="11534237 row tokens"):
                await teacher.score(giant)
            assert tracemalloc.get_traced_memory()[1] < 40_000_000  # the plan has 6 arrays of 8 MB
        finally:
            tracemalloc.stop()
            await teacher.drain(10)

    asyncio.run(whole())


def test_another_teachers_request_is_refused_naming_both() -> None:
    async def body(teacher: Service) -> None:
        with pytest.raises(WrongTeacher, match=f"{'cd' * 32}.*{DIGEST}"):
            await teacher.score(GOOD, "cd" * 32)

    run(body)


def test_it_is_ready_only_between_warm_up_and_drain() -> None:
    async def whole() -> None:
        teacher = service()
        assert teacher.state is State.STARTING
        with pytest.raises(NotReady, match="starting"):
            await teacher.score(GOOD)
        await teacher.warm_up()
        assert teacher.state is State.READY
        answer = asyncio.create_task(teacher.score(GOOD))
        await asyncio.sleep(0)
        draining = asyncio.create_task(teacher.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(NotReady, match="draining"):
            await teacher.score(GOOD)
        np.testing.assert_allclose((await answer).log_probs, oracle(MODEL, GOOD), atol=1e-5)
        await draining

    asyncio.run(whole())


def test_a_device_that_cannot_compute_never_becomes_ready() -> None:
    def broken(batch: object) -> None:
        raise RuntimeError("no memory")

    async def whole() -> None:
        teacher = service(broken)
        with pytest.raises(EngineFailure, match="could not compute this request: see the log"):
            await teacher.warm_up()
        assert teacher.state is State.STARTING
        await teacher.drain(1)

    asyncio.run(whole())


def test_limits_must_allow_something() -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        Limits(max_tokens=0)


def test_all_request_errors_are_teacher_errors() -> None:
    for error in (InvalidRequest, TooLarge, WrongTeacher, Overloaded, NotReady, EngineFailure):
        assert issubclass(error, TeacherError)
