"""Students who ask ahead and teachers who batch, as a discrete-event simulation (SimPy).

What is modelled is what the real parts do: a student keeps `ahead` questions in flight and awaits the answer of the
step whose turn has come (feed.py); it asks a teacher of which it awaits least (teacher/members.py); a teacher that is
free takes what waits, up to a batch, and answers all of it when the batch is through (the server's batcher). Students
know nothing of one another, so a question may wait at one teacher while another is idle, as in reality.

Times are seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Service:
    """A teacher's times for the questions of one kind, measured."""

    batch_s: float  # of a batch, whatever is in it
    question_s: float  # more of each question in it
    around_s: float = 0.0  # of a question outside the device: the network, reading, writing
    spread: float = 0.0  # standard deviation of a batch's time, in parts of it
    most: int = 8  # questions of a batch

    def of(self, questions: int) -> float:
        return self.batch_s + self.question_s * questions

    @property
    def most_a_second(self) -> float:
        """Questions that a teacher can answer when full batches always wait."""
        return self.most / self.of(self.most)


@dataclass(frozen=True)
class Fleet:
    students: int
    teachers: int
    step_s: float  # that a student computes in a step
    ahead: int = 2  # steps asked about before their turn; 0: only when it has come


@dataclass(frozen=True, eq=False)
class Outcome:
    """What happened once all were under way."""

    steps_a_second: float  # of a student
    waited: float  # share of a student's time
    answers_s: np.ndarray[Any, np.dtype[np.float64]]  # from each question to its answer
    busy: float  # share of the teachers' time
    questions_a_batch: float

    def answer_s(self, percent: float) -> float:
        return float(np.percentile(self.answers_s, percent))


def simulate(service: Service, fleet: Fleet, steps: int, seed: int = 0) -> Outcome:
    """Until the students have taken `steps` steps on average, 10 or more; the first fifth is not counted. They begin
    at random within a step's time."""
    if steps < 10:
        raise ValueError("fewer than 10 steps say nothing")
    return _Simulation(service, fleet, steps, seed).outcome()


class _Teacher:
    def __init__(self, simulation: _Simulation) -> None:
        self.simulation = simulation
        self.waiting: deque[simpy.Event] = deque()
        self.sleeping: simpy.Event | None = None

    def ask(self, answer: simpy.Event) -> None:
        self.waiting.append(answer)
        if self.sleeping is not None:
            self.sleeping.succeed()
            self.sleeping = None

    def serve(self) -> Process:
        simulation, service = self.simulation, self.simulation.service
        while True:
            if not self.waiting:
                self.sleeping = simulation.env.event()
                yield self.sleeping
            batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), service.most))]
            begun = simulation.env.now
            yield simulation.env.timeout(service.of(len(batch)) * simulation.noise())
            simulation.computed(begun, len(batch))
            for answer in batch:
                answer.succeed()


class _Student:
    def __init__(self, simulation: _Simulation) -> None:
        self.simulation, self.env, self.fleet = simulation, simulation.env, simulation.fleet
        self.awaited: dict[int, int] = {}  # answers, by teacher; none is 0
        self.turn = int(simulation.rng.integers(self.fleet.teachers))

    def learn(self, start: float) -> Process:
        yield self.env.timeout(start)
        asked: deque[simpy.Event] = deque(self._ask() for _ in range(self.fleet.ahead))
        while True:
            asked.append(self._ask())
            begun = self.env.now
            yield asked.popleft()
            self.simulation.waited(begun)
            yield self.env.timeout(self.fleet.step_s)
            self.simulation.step_taken()

    def _ask(self) -> simpy.Event:
        return self.env.process(self._question())

    def _question(self) -> Process:
        asked, teacher, answer = self.env.now, self._least_busy(), self.env.event()
        self.awaited[teacher] = self.awaited.get(teacher, 0) + 1
        yield self.env.timeout(self.simulation.service.around_s)
        self.simulation.teachers[teacher].ask(answer)
        yield answer
        self.awaited[teacher] -= 1
        if not self.awaited[teacher]:
            del self.awaited[teacher]
        self.simulation.answered(asked)

    def _least_busy(self) -> int:
        """The teacher of which this student awaits least, in turn where several are."""
        teachers = self.fleet.teachers
        least = min(self.awaited.values()) if len(self.awaited) == teachers else 0
        while self.awaited.get(self.turn, 0) > least:
            self.turn = (self.turn + 1) % teachers
        chosen, self.turn = self.turn, (self.turn + 1) % teachers
        return chosen


class _Simulation:
    def __init__(self, service: Service, fleet: Fleet, steps: int, seed: int) -> None:
        self.service, self.fleet = service, fleet
        self.env = simpy.Environment()
        self.rng = np.random.default_rng(seed)
        self._noise: Iterator[float] = iter(())
        self.teachers = [_Teacher(self) for _ in range(fleet.teachers)]
        self._taken, self._first, self._last = 0, fleet.students * steps // 5, fleet.students * steps
        self._begun: float | None = None  # when counting did
        self._wait_s = self._busy_s = 0.0
        self._batches = self._questions = 0
        self._answers: list[float] = []
        self._done = self.env.event()

    def outcome(self) -> Outcome:
        for teacher in self.teachers:
            self.env.process(teacher.serve())
        for start in self.rng.uniform(0, self.fleet.step_s, self.fleet.students):
            self.env.process(_Student(self).learn(float(start)))
        self.env.run(self._done)
        assert self._begun is not None
        seconds = self.env.now - self._begun
        return Outcome(
            (self._last - self._first) / seconds / self.fleet.students,
            self._wait_s / (seconds * self.fleet.students),
            np.array(self._answers),
            self._busy_s / (seconds * self.fleet.teachers),
            self._questions / max(self._batches, 1),
        )

    def noise(self) -> float:
        """A factor of mean 1, gamma distributed: no batch takes less than nothing."""
        if not self.service.spread:
            return 1.0
        for factor in self._noise:
            return factor
        shape = self.service.spread**-2
        self._noise = iter(self.rng.gamma(shape, 1 / shape, 4096).tolist())
        return self.noise()

    def computed(self, begun: float, questions: int) -> None:
        if self._begun is not None:
            self._busy_s += self._since(begun)
            self._batches += 1
            self._questions += questions

    def answered(self, asked: float) -> None:
        if self._begun is not None:
            self._answers.append(self.env.now - asked)

    def waited(self, begun: float) -> None:
        if self._begun is not None:
            self._wait_s += self._since(begun)

    def step_taken(self) -> None:
        self._taken += 1
        if self._taken == self._first:
            self._begun = self.env.now
        elif self._taken == self._last:
            self._done.succeed()

    def _since(self, begun: float) -> float:
        assert self._begun is not None
        return self.env.now - max(begun, self._begun)
