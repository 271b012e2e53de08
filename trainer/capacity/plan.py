"""How many teachers are enough, and what an epoch costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from trainer.capacity.model import Fleet, Outcome, Service, simulate

COUNTED = 400_000  # steps of a simulation at most: a few seconds
FEW, MANY = 20, 200  # steps of a student


@dataclass(frozen=True)
class Training:
    steps: int  # of an epoch
    epochs: int


@dataclass(frozen=True, eq=False)
class Found:
    """One size of a fleet, tried."""

    fleet: Fleet
    outcome: Outcome

    def epoch_s(self, training: Training) -> float:
        """Of an epoch in which the teacher is asked."""
        return training.steps / self.outcome.steps_a_second

    def teacher_hours(self, training: Training, kept: bool) -> float:
        """That all students' training keeps the teachers; `kept`: labels are asked for in the first epoch only.

        The students are taken to be independent of each other: none reads what another has asked for.
        """
        asked = 1 if kept else training.epochs
        return self.fleet.teachers * asked * self.epoch_s(training) / 3600


def least(service: Service, fleet: Fleet) -> int:
    """Teachers below which no fleet can keep up with students who never wait."""
    return max(1, math.ceil(fleet.students / fleet.step_s / service.most_a_second))


def attempt(service: Service, fleet: Fleet, seed: int = 0) -> Found:
    steps = min(MANY, max(FEW, COUNTED // fleet.students))
    return Found(fleet, simulate(service, fleet, steps, seed))


def enough(
    service: Service, fleet: Fleet, waited: float, tell: Callable[[Found], None] = lambda found: None
) -> Found | None:
    """The smallest fleet, to a fiftieth, whose students wait at most that share of their time (`fleet.teachers` is not
    looked at).

    None if even a teacher for each student is not enough: then answers take too long, however many there are.
    """

    def tried(teachers: int) -> Found:
        found = attempt(service, replace(fleet, teachers=teachers))
        tell(found)
        return found

    few, many = 0, min(least(service, fleet), fleet.students)
    good = tried(many)
    while good.outcome.waited > waited:
        if many >= fleet.students:
            return None
        few, many = many, min(math.ceil(many * 1.25), fleet.students)
        good = tried(many)
    while many - few > max(1, many // 50):
        middle = (few + many) // 2
        found = tried(middle)
        if found.outcome.waited <= waited:
            many, good = middle, found
        else:
            few = middle
    return good
