"""Whom the pool asks, and what it does when that fails."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.fake_teachers import (
    FAIL,
    LOST,
    WAIT,
    A,
    B,
    C,
    Cast,
    query_of,
    ready,
)
from trainer.errors import BadInput
from trainer.teacher import member
from trainer.teacher.endpoint import EndpointError, Trouble
from trainer.teacher.pool import Patience
from trainer.teacher.protocol import TripQuery

pytestmark = pytest.mark.usefixtures("in_a_hurry")


def test_answers_come_in_the_order_of_the_parts() -> None:
    cast = Cast()
    with cast.pool() as pool:
        answer = pool.score(query_of(25))  # three requests of at most ten histories
        assert np.array_equal(answer.log_probs, np.full(50, -1, np.float32))
        assert (cast[A].asked, cast[B].asked) == (2, 1)
        assert pool.stats().calls == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["ask"] * 3 + [A, B, C]), min_size=20, max_size=40))
def test_the_least_busy_one_is_asked(steps: list[str]) -> None:
    """Whatever is asked and answered in whatever order, a call goes where fewest are under way."""
    cast = Cast(A, B, C)
    with cast.pool() as pool:
        ready(pool, A, B, C)
        members, busy = pool._members, {A: [], B: [], C: []}  # type: ignore[var-annotated]
        for step in steps:
            if step == "ask":
                call = members.take()
                assert call is not None
                assert len(busy[call.member.name]) == min(map(len, busy.values()))
                busy[call.member.name].append(call)
            elif busy[step]:
                members.answered(busy[step].pop())
        for call in itertools.chain(*busy.values()):
            members.let_go(call)


def test_ties_go_in_turn() -> None:
    cast = Cast(A, B, C)
    with cast.pool() as pool:
        for _ in range(9):
            pool.score(query_of())
        assert [cast[target].asked for target in (A, B, C)] == [3, 3, 3]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([None, LOST, EndpointError(Trouble.FULL, "full", 0.001)]), max_size=6),
    st.lists(st.sampled_from([None, LOST, EndpointError(Trouble.FULL, "full", 0.001)]), max_size=6),
)
def test_every_question_is_answered_once_whatever_fails_on_the_way(
    first: list[EndpointError | None], second: list[EndpointError | None]
) -> None:
    cast = Cast()
    with pytest.MonkeyPatch.context() as quick, cast.pool() as pool, ThreadPoolExecutor(3) as threads:
        quick.setattr(member, "BACKOFF_S", 0.001)
        cast[A].plan, cast[B].plan = list(first), list(second)
        answers = list(threads.map(pool.score, [query_of()] * 9))
        stats = pool.stats()
        assert len(answers) == 9
        assert stats.calls == cast[A].asked + cast[B].asked == 9 + stats.retries
        troubles = sum(counts["failures"] + counts["refusals"] for counts in stats.endpoints.values())
        assert stats.retries == troubles
        assert stats.failovers <= stats.retries


def test_another_endpoint_takes_over_at_once() -> None:
    cast = Cast()
    with cast.pool(FAIL) as pool:
        cast[A].down = LOST
        for _ in range(4):
            pool.score(query_of())
        assert cast[A].asked == 1
        assert pool.stats().failovers == 1
        cast[A].down = None
        ready(pool, A)
        pool.score(query_of())
        pool.score(query_of())
        assert cast[A].asked == 2


def test_calls_that_fail_together_count_as_one_failure() -> None:
    """Or a single broken connection would keep an endpoint out for long, or again after it is back."""
    cast = Cast(A)
    with cast.pool() as pool:
        members = pool._members
        calls = [call for call in (members.take() for _ in range(3)) if call]
        members.failed(calls[0], LOST)
        members.failed(calls[1], LOST)
        assert calls[0].member.failures == 1
        ready(pool, A)
        members.failed(calls[2], LOST)
        assert calls[0].member.failures == 1
        assert pool.score(query_of())
        assert calls[0].member.failures == 0
        assert pool.stats().endpoints[A] == {"calls": 4, "failures": 3, "refusals": 0}


def test_what_nobody_expected_leaves_no_call_behind() -> None:
    cast = Cast(A)
    with cast.pool() as pool:
        cast[A].plan = [RuntimeError("a bug")]
        with pytest.raises(RuntimeError, match="a bug"):
            pool.score(query_of())
        (member,) = pool._members._all.values()
        assert member.outstanding == 0


def test_a_full_queue_is_left_alone_for_as_long_as_it_says() -> None:
    cast = Cast(A)
    with cast.pool(FAIL) as pool:
        cast[A].plan = [EndpointError(Trouble.FULL, "3 wait", 0.3)]
        begun = time.monotonic()
        pool.score(query_of())
        assert 0.3 <= time.monotonic() - begun < 2
        assert pool.stats().endpoints[A] == {"calls": 2, "failures": 0, "refusals": 1}
        assert 0.2 < pool.stats().waited_s < 2
        assert cast[A].described == 1  # it was well all the time


def test_while_one_queue_is_full_the_other_one_is_asked() -> None:
    cast = Cast()
    with cast.pool(FAIL) as pool:
        cast[A].plan = [EndpointError(Trouble.FULL, "3 wait", 30)]
        begun = time.monotonic()
        for _ in range(5):
            pool.score(query_of())
        assert time.monotonic() - begun < 5
        assert (cast[A].asked, cast[B].asked) == (1, 5)


def test_a_question_about_whole_trips_is_asked_like_any_other() -> None:
    """In parts of at most ten trips, and again elsewhere when an endpoint is lost."""
    cast = Cast()
    with cast.pool() as pool:
        cast[A].plan = [LOST]
        found = pool.likelihood(TripQuery(np.zeros(25, np.int32), np.ones(25, np.int64)))
        assert (found.log_likelihoods.tolist(), found.token_counts.tolist()) == ([-2.0] * 25, [2] * 25)
        assert (pool.stats().calls, pool.stats().failovers) == (4, 1)


@pytest.mark.parametrize("policy", [FAIL, WAIT])
def test_mistakes_are_not_repeated(policy: Patience) -> None:
    cast = Cast()
    with cast.pool(policy) as pool:
        cast[A].plan = cast[B].plan = [EndpointError(Trouble.MISTAKE, "10.0.0.1:1 refused the request: no")]
        with pytest.raises(BadInput, match="refused the request: no"):
            pool.score(query_of())
        assert cast[A].asked + cast[B].asked == 1
        pool.score(query_of())  # and nobody is blamed for it
