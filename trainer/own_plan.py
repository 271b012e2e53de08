"""When the student draws routes of its own, for how many real trips, and which.

A function of seed and step alone: so it is the same for any number of ranks, and for a run that goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.data.trips import Ints

OWN = 1  # tells these random numbers from those of an epoch's order


@dataclass(frozen=True)
class OwnPlan:
    """Routes drawn before step k `every` serve the steps that are asked about from then on, `ahead` steps later.

    The first draw also serves the first `ahead` steps.
    """

    trips: int  # of an epoch
    trips_per_step: int  # of all ranks
    epochs: int
    part: float  # of the KL's trips, those that the student draws
    every: int  # steps
    ahead: int  # steps
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.trips // self.trips_per_step)

    def count(self, step: int) -> int:
        """Own routes of a step."""
        before = step % self.steps_per_epoch * self.trips_per_step
        return round(self.part * min(self.trips_per_step, self.trips - before))

    def drawn_at(self, step: int) -> int:
        """The step before which a step's routes are drawn."""
        return max(step - self.ahead, 0) // self.every * self.every

    def served(self, drawn: int) -> range:
        """The steps of a draw, none after the run's last one."""
        first, end = drawn + self.ahead if drawn else 0, drawn + self.every + self.ahead
        return range(first, max(min(end, self.epochs * self.steps_per_epoch), first))

    def place(self, step: int) -> range:
        """Which of its draw's routes are a step's."""
        first = sum(self.count(each) for each in self.served(self.drawn_at(step)) if each < step)
        return range(first, first + self.count(step))

    def sources(self, drawn: int) -> Ints:
        """Real trips whose ends and start times the routes of a draw have, step by step."""
        steps = [
            np.random.default_rng((self.seed, step, OWN)).integers(self.trips, size=self.count(step))
            for step in self.served(drawn)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *steps])

    def search_seed(self, drawn: int) -> int:
        """Of a draw's roads; its routes are told apart by their place."""
        return self.seed * 1_000_003 + drawn
