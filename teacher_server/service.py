"""The teacher as a service: validate, admit, submit. Knows no protocol; every door calls this one.

Letters: B histories, P scored positions, C candidates of a request (see rows.ScoreWork); of whole trips see trips.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from teacher_server.admission import check_limits, check_row_tokens, check_trip_limits, check_trips, check_work
from teacher_server.batcher import Batcher, Priority, WorkResult
from teacher_server.description import TeacherDescription
from teacher_server.errors import MAX_BRIEF, NotReady, WrongTeacher
from teacher_server.limits import Limits
from teacher_server.reports import CANCELLED, OK, Observer, RequestReport, State, reading
from teacher_server.rows import Floats, Ints, ScoreWork
from teacher_server.trips import TripWork, sums_of_trips

__all__ = ["Answer", "Likelihoods", "Scores", "Service", "State"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What every answer says of itself."""

    digest: str  # of the teacher that answered
    queue_us: int
    compute_us: int
    truncated: int  # positions, or whole trips, that were cut to fit the block size


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores(Answer):
    """How probable candidates are."""

    log_probs: Floats  # [C] natural logarithms, each position's candidates summing to 1 in probability


@dataclass(frozen=True, eq=False, kw_only=True)
class Likelihoods(Answer):
    """How probable whole trips are, over the full vocabulary."""

    log_likelihoods: NDArray[np.float64]  # [B] natural logarithms, summed over the tokens 1..EOT
    token_counts: Ints  # [B] how many these are


A = TypeVar("A", bound=Answer)


class Service:
    """One teacher that answers requests once its warm-up is through and until it drains.

    It is stuck while its batcher is. `observer` hears of every state and of every request that ends.
    """

    def __init__(
        self,
        description: TeacherDescription,
        compute_type: str,
        batcher: Batcher,
        limits: Limits,
        observer: Observer | None = None,
    ) -> None:
        self.description, self.compute_type, self.limits = description, compute_type, limits
        self.state = State.STARTING
        self._batcher, self._observer = batcher, observer or Observer()
        batcher.on_stuck = self._device_stuck

    @property
    def queued_requests(self) -> int:
        return self._batcher.queued_requests

    @property
    def queued_tokens(self) -> int:
        """Row tokens that wait."""
        return self._batcher.queued_tokens

    @property
    def queue_tokens(self) -> int:
        """Row tokens that may wait."""
        return self._batcher.queue_tokens

    async def warm_up(self) -> None:
        """Answer one request of one's own by the path that all requests take, then be ready."""
        self._batcher.start()
        cell = np.zeros(1, np.int32)
        one = np.ones(1, np.int64)
        await self._submitted(ScoreWork(cell, one, one, one * 0, np.zeros(2, np.int32), one * 2))
        self._move({State.STARTING}, State.READY)

    async def score(
        self,
        work: ScoreWork,
        digest: str = "",
        *,
        priority: Priority = Priority.TRAINING,
        timeout: float | None = None,
    ) -> Scores:
        """The log-probabilities of the work's candidates. `digest` names the teacher that is meant; empty: any.

        `timeout`: seconds that the caller will still wait; None: as long as it takes. Raises NotReady, WrongTeacher,
        InvalidRequest (naming what is wrong and where), TooLarge, Overloaded, Expired and EngineFailure.
        """
        return await self._reported(len(work.candidate_counts), self._score(work, digest, priority, timeout))

    async def likelihood(
        self,
        trips: TripWork,
        digest: str = "",
        *,
        priority: Priority = Priority.TRAINING,
        timeout: float | None = None,
    ) -> Likelihoods:
        """The log-likelihoods of whole trips; all else as `score`."""
        return await self._reported(trips.positions, self._likelihood(trips, digest, priority, timeout))

    def reading(self) -> AbstractContextManager[None]:
        """Around what a door does to a request before `score`: one that fails there has ended, and is reported."""
        return reading(self._observer)

    async def _reported(self, positions: int, answering: Awaitable[A]) -> A:
        """The answer; whatever becomes of it, the observer hears of it once."""
        arrived = perf_counter()
        outcome, detail, answer = CANCELLED, "", None
        try:
            answer = await answering
            outcome = OK
            return answer
        except Exception as error:
            outcome, detail = type(error).__name__, str(error)[:MAX_BRIEF]
            raise
        finally:
            queue_s, compute_s = (answer.queue_us / 1e6, answer.compute_us / 1e6) if answer else (0.0, 0.0)
            total_s = perf_counter() - arrived
            self._observer.request(RequestReport(outcome, total_s, positions, queue_s, compute_s, detail))

    async def _score(self, work: ScoreWork, digest: str, priority: Priority, timeout: float | None) -> Scores:
        self._check_meant(digest)
        check_limits(work, self.limits)
        check_work(work, self.description.grid.cells)
        result = await self._submitted(work, priority, timeout)
        return Scores(log_probs=result.log_probs, truncated=result.truncated, **self._told(result))

    async def _likelihood(self, trips: TripWork, digest: str, priority: Priority, timeout: float | None) -> Likelihoods:
        self._check_meant(digest)
        check_trip_limits(trips, self.limits)
        check_trips(trips, self.description.grid.cells)
        block_size = self.description.model.block_size
        work = trips.score_work(block_size, self.description.special.eot)
        result = await self._submitted(work, priority, timeout)
        return Likelihoods(
            log_likelihoods=sums_of_trips(result.log_probs, work.scored),
            token_counts=work.scored,
            truncated=trips.truncated(block_size),
            **self._told(result),
        )

    def _check_meant(self, digest: str) -> None:
        """Raise NotReady or WrongTeacher unless this teacher is meant, and answers."""
        if self.state not in (State.READY, State.LEAVING):
            raise NotReady(f"the teacher is {self.state.value}: try again later or another replica")
        if digest and digest != self.description.digest:
            raise WrongTeacher(f"the request is for teacher {digest}, but this is {self.description.digest}")

    def leave(self) -> None:
        """Be no longer ready, but answer: those who look at it will send no more requests."""
        self._move({State.READY}, State.LEAVING)

    async def drain(self, grace: float) -> None:
        """Refuse new requests at once; return when those that were admitted are answered, or after `grace` s."""
        self._move(set(State), State.DRAINING)
        await self._batcher.close(grace)

    def _device_stuck(self, stuck: bool) -> None:
        if stuck:
            self._move({State.STARTING, State.READY}, State.STUCK)
        else:
            self._move({State.STUCK}, State.READY)

    def _move(self, origins: set[State], state: State) -> None:
        if self.state in origins:
            self.state = state
            self._observer.state(state)

    async def _submitted(
        self, work: ScoreWork, priority: Priority = Priority.TRAINING, timeout: float | None = None
    ) -> WorkResult:
        check_row_tokens(work, self.description.model.block_size, self.limits)
        return await self._batcher.submit(work, priority, timeout)

    def _told(self, result: WorkResult) -> dict[str, Any]:
        """The fields that all answers have."""
        return {"digest": self.description.digest, "queue_us": result.queue_us, "compute_us": result.compute_us}
