"""The teacher behind any number of endpoints: asks the least busy one, fails over, waits as the run's policy says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Literal, TypeVar

from trainer.errors import NoAnswer, Stopped, TeacherUnavailable
from trainer.teacher.endpoint import Endpoint, EndpointError, Trouble
from trainer.teacher.member import Call, Member
from trainer.teacher.members import Members
from trainer.teacher.outage import Outage, tell
from trainer.teacher.places import Place, Places
from trainer.teacher.protocol import Answer, Description, Likelihoods, Query, TripQuery, joined, joined_trips
from trainer.teacher.split import split_query, split_trips

A = TypeVar("A")

RESOLVE_S = 5.0  # names are looked up so often
LOOK_S = 0.1  # whoever waits looks so often whether a stop was asked for
IN_FLIGHT = 2  # requests at a time keep an endpoint busy: one is computed, one waits or is on its way

OnLoss = Literal["wait", "skip-kl", "fail"]


@dataclass(frozen=True)
class Patience:
    """How long one waits for a teacher, and what comes then."""

    deadline_s: float = 120.0  # of one request
    on_loss: OnLoss = "wait"
    wait_limit_s: float = 1800.0  # of `wait`
    connect_s: float = 30.0  # at the start, under every policy


@dataclass(frozen=True)
class PoolStats:
    """What asking took so far."""

    calls: int  # requests, repeated ones included
    retries: int  # requests that repeat one that failed or was refused
    failovers: int  # of these, those at another endpoint
    waited_s: float  # in which somebody waited because no endpoint could be asked
    endpoints: dict[str, dict[str, int]]  # calls, failures and refusals (its queue was full) by address


@dataclass
class Trial:
    """How long one request has been tried, in monotonic seconds."""

    begun: float = field(default_factory=time.monotonic)
    alone_since: float = 0.0  # when first nobody could be asked


class Pool:
    """Thread-safe: many threads may ask at once, and `close` ends their calls and waits."""

    def __init__(
        self,
        targets: Sequence[str],
        connect: Callable[[Place], Endpoint],
        patience: Patience | None = None,
        *,
        stopped: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = tell,
        digest: str | None = None,
    ) -> None:
        """Connects and reads the description. Raises TeacherUnavailable, TeacherMismatch or BadInput.

        `digest` of the teacher to ask for where an endpoint has several. `stopped` ends waits, but no call under way,
        once it is true.
        """
        self._patience, self._stopped = patience or Patience(), stopped
        self._places, self._members, self._outage = Places(targets), Members(connect, say, digest or ""), Outage(say)
        self._closing = threading.Event()
        self._calls = self._retries = self._failovers = 0
        try:
            self._members.keep_to(self._places.now())
            if self._places.names:
                threading.Thread(target=self._follow_names, name="teacher names", daemon=True).start()
            self._members.settle(self._patience.connect_s, self._complaint)
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> Description:
        """The teacher that all endpoints serve, with limits that each of them keeps."""
        return self._members.meant

    @property
    def in_flight(self) -> int:
        """Requests at a time that keep all endpoints busy that are known now; a name may stand for many."""
        return IN_FLIGHT * max(self._members.count, 1)

    def score(self, query: Query) -> Answer:
        """Blocks until there is an answer.

        Raises TeacherUnavailable (NoAnswer where the run may go on without), TeacherMismatch, BadInput, and Stopped.
        """
        return joined(self._score_part(part) for part in split_query(query, self.description))

    def likelihood(self, query: TripQuery) -> Likelihoods:
        """As `score`, about whole trips."""
        return joined_trips(self._judge_part(part) for part in split_trips(query, self.description))

    def stats(self) -> PoolStats:
        with self._members.changed:
            counts = {name: asdict(counts) for name, counts in self._members.counts.items()}
            return PoolStats(self._calls, self._retries, self._failovers, self._outage.waited_s, counts)

    def close(self) -> None:
        """Ends everything at once, calls under way included."""
        self._closing.set()
        self._members.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _score_part(self, query: Query) -> Answer:
        return self._asked(lambda endpoint: endpoint.score(query, self._patience.deadline_s))

    def _judge_part(self, query: TripQuery) -> Likelihoods:
        return self._asked(lambda endpoint: endpoint.likelihood(query, self._patience.deadline_s))

    def _asked(self, ask: Callable[[Endpoint], A]) -> A:
        """The answer of whichever endpoint gives one."""
        trial, last = Trial(), None
        while True:
            call = self._members.take() or self._wait(trial)
            self._count(call, last)
            try:
                answer = ask(call.member.endpoint)
            except EndpointError as error:
                self._members.failed(call, error)
                if error.trouble is Trouble.MISTAKE:
                    raise error.for_user() from None
                last = call.member
            except BaseException:
                self._members.let_go(call)
                raise
            else:
                self._members.answered(call)
                self._outage.over()
                return answer

    def _count(self, call: Call, last: Member | None) -> None:
        with self._members.changed:
            self._calls += 1
            self._retries += last is not None
            self._failovers += last not in (None, call.member)

    def _wait(self, trial: Trial) -> Call:
        """Until somebody may be asked, as the policy says."""
        trial.alone_since = trial.alone_since or time.monotonic()
        with self._outage.waiting(), self._members.changed:
            while True:
                if self._closing.is_set() or self._stopped():
                    raise Stopped("the wait for the teacher was ended")
                if call := self._members.take():
                    return call
                self._check_patience(trial)
                self._members.changed.wait(LOOK_S)

    def _check_patience(self, trial: Trial) -> None:
        if mismatch := self._members.mismatch():
            raise mismatch
        patience, hopeful, now = self._patience, self._members.hopeful(), time.monotonic()
        if patience.on_loss == "wait":
            if now - trial.alone_since > patience.wait_limit_s:
                raise TeacherUnavailable(f"{self._complaint()}; waited {patience.wait_limit_s:.0f} s")
            self._outage.remark(self._complaint, patience.wait_limit_s, at_once=not hopeful)
        elif not hopeful or now - trial.begun > patience.deadline_s:
            raise (NoAnswer if patience.on_loss == "skip-kl" else TeacherUnavailable)(self._complaint())

    def _complaint(self) -> str:
        if self._members.complaint():
            return self._members.complaint()
        return f"no teacher answers at {', '.join(self._places.targets)} ({self._places.failure})"

    def _follow_names(self) -> None:
        while not self._closing.wait(RESOLVE_S):
            self._members.keep_to(self._places.now())
