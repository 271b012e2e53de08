"""When nobody answers: what the pool says, how long it waits, and how it ends."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from tests.trainer.fake_teachers import (
    FAIL,
    LOST,
    WAIT,
    A,
    Asking,
    B,
    Cast,
    eventually,
    query_of,
    ready,
)
from trainer.errors import NoAnswer, Stopped, TeacherUnavailable
from trainer.teacher import outage
from trainer.teacher.endpoint import EndpointError, Trouble
from trainer.teacher.pool import Patience

pytestmark = pytest.mark.usefixtures("in_a_hurry")


@pytest.mark.parametrize("on_loss", ["fail", "skip-kl"])
def test_queues_that_stay_full_cost_no_more_than_the_deadline(on_loss: str) -> None:
    cast = Cast(A)
    with cast.pool(Patience(deadline_s=0.3, on_loss=on_loss)) as pool:  # type: ignore[arg-type]
        cast[A].plan = [EndpointError(Trouble.FULL, "3 wait", 0.05)] * 1000
        with pytest.raises(TeacherUnavailable, match=r"too many wait for the teacher at 10\.0\.0\.1:1 \(3 wait\)"):
            pool.score(query_of())


@pytest.mark.parametrize(("on_loss", "kind"), [("fail", TeacherUnavailable), ("skip-kl", NoAnswer)])
def test_after_a_round_over_all_nobody_is_left(on_loss: str, kind: type[TeacherUnavailable]) -> None:
    cast = Cast()
    with cast.pool(Patience(on_loss=on_loss)) as pool:  # type: ignore[arg-type]
        cast[A].down = cast[B].down = LOST
        with pytest.raises(
            kind, match=r"no teacher answers at 10\.0\.0\.1:1, 10\.0\.0\.2:1 \(UNAVAILABLE: conn"
        ) as caught:
            pool.score(query_of())
        assert type(caught.value) is kind
        assert (cast[A].asked, cast[B].asked) == (1, 1)
        begun = time.monotonic()
        with pytest.raises(kind):
            pool.score(query_of())
        assert time.monotonic() - begun < 1  # all are known to be out
        cast[B].down = None
        ready(pool, B)
        pool.score(query_of())


def test_one_that_fails_although_it_says_it_is_well(ask: Asking) -> None:
    cast = Cast(A)
    with cast.pool(FAIL) as pool:
        cast[A].plan = [EndpointError(Trouble.LOST, "INTERNAL: the computation failed")] * 9
        with pytest.raises(TeacherUnavailable, match="INTERNAL: the computation failed"):
            pool.score(query_of())
        assert cast[A].asked == 2  # once more, after it had said that it is well
    with cast.pool(WAIT) as pool:
        pool.score(query_of())


def test_waiting_is_said_and_ends_with_an_answer(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "REMIND_S", 0.2)
    cast = Cast()
    with cast.pool(WAIT) as pool:
        cast[A].down = cast[B].down = LOST
        answers = [ask(pool) for _ in range(3)]
        eventually(lambda: len(cast.said) >= 2)
        cast[B].down = None
        assert all(len(answer.result(5).log_probs) == 2 for answer in answers)
        where = "no teacher answers at 10.0.0.1:1, 10.0.0.2:1 (UNAVAILABLE: connection refused)"
        assert cast.said[0] == f"{where}; waiting (limit 1800 s)"
        assert cast.said[1] == f"{where}; waiting for 0 s (limit 1800 s)"
        assert cast.said[-1] == "a teacher answers again after 0 s"
        assert 0.2 < pool.stats().waited_s < 5
        pool.score(query_of())
        assert sum("again" in text for text in cast.said) == 1


def test_a_short_loss_is_not_worth_a_word(ask: Asking) -> None:
    cast = Cast(A)
    with cast.pool(WAIT) as pool:
        cast[A].plan = [LOST]
        pool.score(query_of())
        assert cast.said == []
        assert pool.stats().retries == 1
        assert pool.stats().failovers == 0


def test_waiting_has_a_limit() -> None:
    cast = Cast(A)
    with cast.pool(Patience(wait_limit_s=0.3)) as pool:
        cast[A].down = LOST
        with pytest.raises(TeacherUnavailable, match="waited 0 s") as caught:
            pool.score(query_of())
        assert not isinstance(caught.value, NoAnswer)


def test_a_stop_ends_the_wait(ask: Asking) -> None:
    cast, stop = Cast(A), threading.Event()
    with cast.pool(WAIT, stopped=stop.is_set) as pool:
        cast[A].down = LOST
        answer = ask(pool)
        eventually(lambda: bool(cast.said))
        stop.set()
        with pytest.raises(Stopped):
            answer.result(1)


@pytest.mark.parametrize("state", ["waiting", "asking"])
def test_close_ends_everything_at_once(ask: Asking, state: str) -> None:
    cast = Cast(A)
    with cast.pool(WAIT) as pool:
        cast[A].gate = threading.Event()
        cast[A].down = LOST if state == "waiting" else None
        answers = [ask(pool) for _ in range(3)]
        eventually(lambda: bool(cast.said) if state == "waiting" else cast[A].asked == 3)
        begun = time.monotonic()
    for answer in answers:
        with pytest.raises(Stopped):
            answer.result(1)
    assert time.monotonic() - begun < 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("probe", "teacher names"))]


def test_callers_that_wait_together_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(outage, "time", SimpleNamespace(monotonic=lambda: now))
    loss = outage.Outage(say=lambda text: None)
    with loss.waiting():
        now += 1
        with loss.waiting():
            now += 1
            assert loss.waited_s == 2
        now += 1
    now += 5
    assert loss.waited_s == 3
