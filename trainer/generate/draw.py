"""Routes that a student draws while it is being trained. Needs torch and numpy alone."""

from __future__ import annotations

import torch

from trainer.data.features import Network
from trainer.generate.demand import Demand
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.lock_step import LockStep, places_for
from trainer.generate.route import Route
from trainer.generate.search import SearchSettings
from trainer.student.hoser import HOSER
from trainer.student.prefixes import Attend, attend


def draw(
    student: HOSER,
    network: Network,
    times: StepTimes,
    demand: Demand,
    seed: int,
    *,
    max_steps: int,
    longest: int,
    temperature: float = 1.0,
    angle: str = "original",
    attend: Attend = attend,
) -> list[Route]:
    """A sampled route for each trip of a demand, by the student as it is now, which is left as it was.

    A route depends on weights, seed and index of its trip alone. It is not `reached` where the walk came to a dead
    end or took `longest` steps; it then leads to the road nearest to the destination on its way. `network` must be on
    the student's device. `max_steps`: how many the student remembers (`trajectory_encoder_config.max_len`).
    `attend`: on a CPU `trainer.generate.kernel.attend` (with numba) is quicker.
    """
    settings = SearchSettings("sample", longest, seed=seed, temperature=temperature)
    training, places = student.training, places_for(settings, len(network.out_degree))
    try:
        with torch.autocast(network.successors.device.type, enabled=False):
            expander = Expander(student, network, times, max_steps=max_steps, angle=angle, places=places, attend=attend)
            found = sorted(LockStep(expander, demand, settings).run(range(len(demand))), key=lambda trip: trip.index)
    finally:
        student.train(training)
    return [trip.route for trip in found]
