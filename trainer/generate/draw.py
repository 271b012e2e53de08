"""Routes that a student draws while it is being trained. Needs torch and numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from trainer.data.features import Network
from trainer.errors import Stopped
from trainer.generate.demand import Demand
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.lock_step import LockStep, places_for
from trainer.generate.route import Route
from trainer.generate.search import SearchSettings
from trainer.student.hoser import HOSER

Drawn = dict[int, Route]  # by index in the demand


@dataclass(frozen=True)
class Drawer:
    """A student, as it is at the moment, and how it draws a road after the other."""

    student: HOSER
    network: Network  # on the student's device
    times: StepTimes
    longest: int  # steps of a route; at most what the student remembers
    temperature: float = 1.0
    angle: str = "original"

    def routes(
        self, demand: Demand, trips: Iterable[int], seed: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Drawn:
        """Sampled routes for the demand's trips of these indices; the student is left as it was. Raises Stopped.

        A route depends on weights, seed and index of its trip alone. It is not `reached` where the walk came to a dead
        end or took its `longest` steps; it then ends where it was.
        """
        settings = SearchSettings("sample", self.longest, seed=seed, temperature=self.temperature, whole=True)
        training, drawn = self.student.training, Drawn()
        try:
            with torch.autocast(self.network.successors.device.type, enabled=False):
                for found in LockStep(self._expander(settings), demand, settings).run(trips):
                    drawn[found.index] = found.route
                    if should_stop():
                        raise Stopped
        finally:
            self.student.train(training)
        return drawn

    def _expander(self, settings: SearchSettings) -> Expander:
        places = places_for(settings, len(self.network.out_degree))
        return Expander(self.student, self.network, self.times, max_steps=self.longest, angle=self.angle, places=places)
