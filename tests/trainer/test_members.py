"""Who belongs to a pool: one teacher only, at addresses that come and go."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.fake_teachers import (
    FAIL,
    LIMITS,
    LOST,
    TEACHER,
    WAIT,
    A,
    Asking,
    B,
    Cast,
    eventually,
    query_of,
    ready,
)
from trainer.commands.label import _asked
from trainer.data.city import City
from trainer.data.prepare import Prepared
from trainer.data.trips import Trips
from trainer.errors import BadInput, TeacherMismatch, TeacherUnavailable
from trainer.evaluate.teacher_judge import judge_by_teacher
from trainer.grid import TokenMap
from trainer.teacher import pool as pool_module
from trainer.teacher.endpoint import EndpointError, Trouble
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.protocol import Likelihoods

pytestmark = pytest.mark.usefixtures("in_a_hurry")


def test_the_smallest_limits_hold_for_all() -> None:
    cast = Cast()
    cast[B].description = replace(TEACHER, limits=replace(LIMITS, sequences=4))
    with cast.pool() as pool:
        assert pool.description.limits == replace(LIMITS, sequences=4)
        pool.score(query_of(8))
        assert cast[A].asked + cast[B].asked == 2


def test_another_teacher_is_not_used_and_reported_once() -> None:
    cast = Cast()
    with cast.pool(WAIT) as pool:
        cast[A].other()
        for _ in range(6):
            pool.score(query_of())
        assert cast[A].asked == 1
        eventually(lambda: cast[A].described > 4)
        assert cast.said == [
            f"the teacher at 10.0.0.1:1 is {'e' * 64} (float32), not {'d' * 64} (float32): it is not used"
        ]
        cast[A].description, cast[A].plan = TEACHER, []
        ready(pool, A)
        pool.score(query_of())
        pool.score(query_of())
        assert cast[A].asked == 2


def test_the_same_teacher_in_another_precision_is_another_one() -> None:
    cast = Cast()
    with cast.pool(WAIT) as pool:
        cast[A].description = replace(TEACHER, compute_type="bfloat16")
        cast[A].plan = [LOST]
        pool.score(query_of())
        eventually(lambda: bool(cast.said))
        assert "(bfloat16), not" in cast.said[0]


@pytest.mark.parametrize("policy", [FAIL, WAIT, Patience(on_loss="skip-kl")])
def test_only_other_teachers_are_left(policy: Patience) -> None:
    cast = Cast()
    with cast.pool(policy) as pool:
        cast[A].other("e" * 64)
        cast[B].other("f" * 64)
        with pytest.raises(TeacherMismatch, match=r"[ef]{64}"):
            pool.score(query_of())


def test_one_other_teacher_and_one_that_is_away_is_a_loss() -> None:
    cast = Cast()
    with cast.pool(FAIL) as pool:
        cast[A].other()
        cast[B].down = LOST
        with pytest.raises(TeacherUnavailable, match=r"no teacher answers at 10\.0\.0\.2:1 "):
            pool.score(query_of())


def test_at_the_start_one_that_answers_is_enough() -> None:
    cast = Cast()
    cast[A].down = LOST
    with cast.pool() as pool:
        pool.score(query_of())
        cast[A].down = None
        ready(pool, A)


def test_whatever_a_probe_meets_there_is_a_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cast, probes = Cast(), []

    def describe(*_: object) -> None:
        probes.append(None)
        raise OSError(24, "Too many open files")

    with cast.pool(FAIL) as pool:
        cast[A].plan = [LOST]
        with monkeypatch.context() as patch:
            patch.setattr(cast[A], "describe", describe)
            pool.score(query_of())
            pool.score(query_of())
            eventually(lambda: len(probes) > 2)
            cast[B].down = LOST
            with pytest.raises(TeacherUnavailable, match=r"10\.0\.0\.1:1.*OSError: \[Errno 24\] Too many open files"):
                pool.score(query_of())
        ready(pool, A)
        pool.score(query_of())


def test_at_the_start_somebody_must_answer() -> None:
    cast = Cast()
    cast[A].down = cast[B].down = LOST
    with pytest.raises(TeacherUnavailable, match=r"no teacher answers at 10\.0\.0\.1:1, 10\.0\.0\.2:1 "):
        cast.pool(WAIT)
    assert cast[A].closed.is_set()


@pytest.mark.parametrize("difference", [{"digest": "e" * 64}, {"compute_type": "float16"}])
def test_at_the_start_all_must_agree(difference: dict[str, str]) -> None:
    cast = Cast()
    cast[B].description = replace(TEACHER, **difference)  # type: ignore[arg-type]
    with pytest.raises(TeacherMismatch, match=r"10\.0\.0\.1:1 has d{64} \(float32\), 10\.0\.0\.2:1 has "):
        cast.pool()


def test_at_the_start_a_mistake_is_said_at_once() -> None:
    cast = Cast()
    cast[A].down = EndpointError(Trouble.MISTAKE, "10.0.0.1:1: the token is not known")
    cast[B].down = LOST
    begun = time.monotonic()
    with pytest.raises(BadInput, match="the token is not known"):
        cast.pool()
    assert time.monotonic() - begun < 5


def test_replicas_come_and_go_behind_a_name(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["10.0.0.1"]

    def getaddrinfo(host: str, port: int, **how: object) -> list[tuple[object, ...]]:
        assert (host, port) == ("teachers.test", 1)
        if not found:
            raise OSError(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in found]

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr(pool_module, "RESOLVE_S", 0.02)
    cast = Cast("teachers.test:1")
    name_a, name_b = "teachers.test:1 (10.0.0.1)", "teachers.test:1 (10.0.0.2)"
    with cast.pool(WAIT) as pool:
        pool.score(query_of())
        found.append("10.0.0.2")
        eventually(lambda: name_b in pool.stats().endpoints)
        ready(pool, name_b)
        cast[A].gate = threading.Event()
        answers = [ask(pool), ask(pool)]
        assert cast[A].entered.acquire(timeout=5)
        assert cast[A].entered.acquire(timeout=5)
        found.remove("10.0.0.1")  # it leaves with a call under way
        eventually(lambda: len(pool._members._all) == 1)
        for _ in range(5):
            pool.score(query_of())
        assert cast[A].asked == 2
        assert not cast[A].closed.is_set()
        cast[A].gate.set()
        assert all(len(answer.result(5).log_probs) == 2 for answer in answers)
        eventually(cast[A].closed.is_set)
        found.clear()  # nobody knows the name any more: who is there stays
        time.sleep(0.1)
        pool.score(query_of())
        assert pool.stats().endpoints[name_a]["calls"] == 2


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    expected = r"no teacher answers at teachers.test:1 \(teachers.test:1 has no address: Name or service not known\)"
    with pytest.raises(TeacherUnavailable, match=expected):
        Cast("teachers.test:1").pool(WAIT)


@pytest.mark.parametrize("host", ["teacher..svc", "b" * 64])
def test_a_name_that_no_resolver_takes(host: str) -> None:
    with pytest.raises(
        TeacherUnavailable, match=rf"no teacher answers at {host}:1 \({host}:1 has no address: .*too long"
    ):
        Cast(f"{host}:1").pool(WAIT)


@pytest.fixture
def two_behind_a_name(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of two replicas that have one name."""

    def getaddrinfo(host: str, port: int, **how: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in ("10.0.0.1", "10.0.0.2")]

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    cast = Cast("teachers.test:1")
    monkeypatch.setattr("trainer.teacher.address.GrpcEndpoint", lambda place, access: cast.connect(place))
    return "grpc://teachers.test:1"


def test_labelling_keeps_all_replicas_behind_a_name_busy(two_behind_a_name: str) -> None:
    for address, at_once in ((two_behind_a_name, 4), (f"{two_behind_a_name},10.0.0.3:1", 6), ("grpc://10.0.0.3:1", 2)):
        with _asked(None, address, FAIL, None) as (_, in_flight):
            assert in_flight == at_once


def test_judging_keeps_all_replicas_behind_a_name_busy(
    two_behind_a_name: str, city: City, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def judge_trips(teacher: Pool, tokens: object, trips: Trips, title: str, in_flight: int) -> Likelihoods:
        asked.append(in_flight)
        return Likelihoods(-1.0 - trips.lengths, trips.lengths + 1, 0)

    monkeypatch.setattr("trainer.evaluate.teacher_judge.judge_trips", judge_trips)
    monkeypatch.setattr(
        "trainer.evaluate.teacher_judge.map_roads", lambda grid, _: TokenMap(grid, np.zeros(0, np.int32), 0)
    )
    judge_by_teacher(two_behind_a_name, Prepared(city, tmp_path / "data", False), "test", None, None)
    assert set(asked) == {4}
