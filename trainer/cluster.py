"""Work on the nodes of a Ray cluster that is there already: checking trips, and asking teachers.

Only what is done is Ray's; what comes of it is kept, in order, by the process that asked, so results are those of a
plain run, byte for byte. A node that dies costs the time to do its work again. This project, the files that an address
names and the environment's credentials must be there on every node.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported: nothing is told to anybody
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # nor begun anew by a thread that asks after the end

import ray
import ray.exceptions

from trainer.errors import BadInput, Stopped, TeacherUnavailable, TrainerError
from trainer.teacher.address import connect
from trainer.teacher.pool import Patience
from trainer.teacher.protocol import Answer, Description, Likelihoods, Query, Teacher, TripQuery

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

CONNECT_S = 5.0
HERE_S = 10.0  # an asker that does not say so long that it is there has lost its node
START = "start one with `ray start --head`, or name one by RAY_ADDRESS"


class Cluster:
    """A connection to the cluster that RAY_ADDRESS names, or that this machine belongs to. Use it in a `with`.

    Raises BadInput where there is none: none is started, for Ray listens on every address of a machine.
    """

    def __init__(self) -> None:
        address = os.environ.get("RAY_ADDRESS", "auto")
        try:
            _reach(address)
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(f"--engine ray: no Ray cluster answers ({_first_line(error)}); {START}") from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> Iterator[R]:
        """`map`, with as many items at work as the cluster has cores, and a few more."""
        at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        everywhere = ray.put(function)
        running: deque[Any] = deque()
        for work in _at_work(everywhere, items):
            running.append(work)
            if len(running) >= at_once:
                yield _result(running.popleft())
        while running:
            yield _result(running.popleft())

    def teacher(self, address: str, patience: Patience, digest: str | None = None) -> ClusterTeacher:
        return ClusterTeacher(address, patience, digest)


class ClusterTeacher:
    """A teacher that is asked from the cluster's nodes: with `local:FOLDER` each asker serves one of its own.

    One asker for each GPU of the cluster; where it has none, one for each node. Thread-safe: as many questions as there
    are askers are under way at a time. An asker that is nowhere, for no GPU is left for it, is passed over until it has
    one again.
    """

    def __init__(self, address: str, patience: Patience, digest: str | None) -> None:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.count = gpus or sum(node["Alive"] for node in ray.nodes())
        options = {"num_gpus": 1} if gpus else {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
        remote = _Asker.options(max_concurrency=2, **options)  # type: ignore[attr-defined]  # `here` beside a question
        self._limit_s = patience.wait_limit_s if patience.on_loss == "wait" else patience.deadline_s
        self._all = [remote.remote(address, patience, digest) for _ in range(self.count)]
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        for asker in self._all:
            self._free.put(asker)
        self._description: Description = self._asked("description")

    @property
    def description(self) -> Description:
        return self._description

    def score(self, query: Query) -> Answer:
        answer: Answer = self._asked("score", query)
        return answer

    def likelihood(self, query: TripQuery) -> Likelihoods:
        found: Likelihoods = self._asked("likelihood", query)
        return found

    def close(self) -> None:
        """Ends the askers, and with them the teachers that they serve; whoever waits is told."""
        self._closed = True
        for asker in self._all:
            ray.kill(asker)
        self._free.put(None)

    def _asked(self, what: str, *words: Any) -> Any:
        while True:
            asker = self._next()
            answer = getattr(asker, what).remote(*words)
            answer.future().add_done_callback(lambda _, asker=asker: self._free.put(asker))
            if _comes(answer, asker):
                return _result(answer)

    def _next(self) -> Any:
        """An asker that has answered whatever it was asked. Raises TeacherUnavailable or Stopped."""
        try:
            asker = self._free.get(timeout=self._limit_s)
        except queue.Empty:
            raise TeacherUnavailable(f"no node of the Ray cluster has answered for {self._limit_s:g} s") from None
        if self._closed:
            self._free.put(None)  # for the next who waits
            raise Stopped("the askers have been ended")
        return asker


@ray.remote(max_restarts=-1, max_task_retries=-1)
class _Asker:
    """Lives on a node, and anew on another one when that dies."""

    def __init__(self, address: str, patience: Patience, digest: str | None) -> None:
        self._address, self._patience, self._digest = address, patience, digest
        self._teacher: Teacher | None = None

    def here(self) -> None:
        """Answers at once, whatever else is asked."""

    def description(self) -> Description:
        return self._connected().description

    def score(self, query: Query) -> Answer:
        return self._connected().score(query)

    def likelihood(self, query: TripQuery) -> Likelihoods:
        return self._connected().likelihood(query)

    def _connected(self) -> Teacher:
        """At the first question, so that an error is that question's."""
        if self._teacher is None:
            self._teacher = connect(self._address, self._patience, digest=self._digest)
        assert self._teacher is not None, "addresses of nobody are refused before"
        return self._teacher


@ray.remote(max_retries=-1)
def _apply(function: Any, item: Any) -> Any:
    return function(item)


def _at_work(function: Any, items: Iterable[Any]) -> Iterator[Any]:
    """What will be the result of each item. An item that cannot be read is its own, and takes its turn: what is wrong
    with an earlier one goes before it.
    """
    try:
        for item in items:
            yield _apply.remote(function, item)
    except TrainerError as error:
        yield error


def _comes(answer: Any, asker: Any) -> bool:
    """Waits for an answer; False: whoever was asked is nowhere, and may never answer."""
    while not _is_there(answer, HERE_S):
        if not _is_there(asker.here.remote(), HERE_S):
            return _is_there(answer, 0)
    return True


def _is_there(reference: Any, seconds: float) -> bool:
    return bool(ray.wait([reference], timeout=seconds)[0])


def _result(reference: Any) -> Any:
    """Raises errors for users as they were raised on the node, and TeacherUnavailable when the cluster is gone."""
    if isinstance(reference, TrainerError):
        raise reference
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TrainerError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise TeacherUnavailable(f"the Ray cluster gives no answer: {_first_line(error)}") from None


def _reach(address: str) -> None:
    """Raises OSError at once where Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), CONNECT_S).close()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
