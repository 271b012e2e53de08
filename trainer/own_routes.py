"""Routes that the student draws itself, so that the KL is also taken where the student goes.

The student of the moment draws them, without dropout. They become trips like any others: each enters a road when the
student thinks it would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.batches import cut
from trainer.data.city import City
from trainer.data.features import Network
from trainer.data.trips import Trips
from trainer.examples import Part
from trainer.generate.demand import demand_of
from trainer.generate.draw import Drawer, Drawn
from trainer.generate.expander import StepTimes
from trainer.own_plan import OwnPlan
from trainer.ranks import Ranks
from trainer.student.hoser import HOSER
from trainer.teacher.targets import Targets


@dataclass
class OwnRoutes:
    """Draws routes when they are due, keeps them until they are used, and deals them out."""

    plan: OwnPlan
    trips: Trips  # the real ones
    targets: Targets  # asked live: no store knows these routes
    drawer: Drawer
    ranks: Ranks
    draws: dict[int, Trips] = field(default_factory=dict)  # by the step that they were drawn before

    def due(self, step: int) -> bool:
        """Whether routes are to be drawn before this step."""
        return step % self.plan.every == 0 and step not in self.draws and len(self.plan.sources(step)) > 0

    def draw(self, step: int, should_stop: Callable[[], bool]) -> Drawn:
        """This rank's routes of the draw before a step. Raises Stopped."""
        demand = demand_of(self.trips, self.plan.sources(step))
        places = list(self.ranks.share(range(len(demand))))
        return self.drawer.routes(demand, places, self.plan.search_seed(step), should_stop)

    def keep(self, step: int, drawn: Drawn) -> tuple[int, int]:
        """Takes the routes of all ranks; how many they are, and how many reached their destination. RankLost."""
        trips, reached = _of_all_ranks(drawn, len(self.plan.sources(step)), self.ranks, self.drawer)
        oldest = self.plan.drawn_at(step)
        self.draws = {at: each for at, each in self.draws.items() if at >= oldest} | {step: trips}
        return len(trips), reached

    def parts(self, step: int, size: int) -> list[Part]:
        """This rank's micro-batches of a step; a route of one road has no step, and is in none."""
        place = self.plan.place(step)
        if not place:
            return []
        drawn = self.draws[self.plan.drawn_at(step)]
        chosen = np.array(place)
        chosen = chosen[drawn.lengths[chosen] > 1][self.ranks.rank :: self.ranks.world]
        return [Part(drawn, some, self.targets, own=True) for some in cut(chosen, size)]

    def state(self) -> dict[int, dict[str, Tensor]]:
        """For the checkpoint."""
        return {
            at: {name: torch.from_numpy(getattr(trips, name)) for name in ("roads", "times", "offsets")}
            for at, trips in self.draws.items()
        }

    def restore(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """From the checkpoint."""
        self.draws = {at: Trips(**{name: v.numpy() for name, v in trips.items()}) for at, trips in state.items()}


def _of_all_ranks(drawn: Drawn, count: int, ranks: Ranks, drawer: Drawer) -> tuple[Trips, int]:
    """Every rank has all routes, so that any step can be dealt out anew and the first rank's checkpoint is whole."""
    device = drawer.network.successors.device
    heads = torch.zeros((2, count), dtype=torch.int64)  # points of each route, and whether it reached its destination
    for place, route in drawn.items():
        heads[:, place] = torch.tensor([len(route.path.roads), route.reached])
    lengths, reached = ranks.sum(heads.to(device)).cpu().numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    points = torch.zeros((2, int(offsets[-1])), dtype=torch.int64)
    for place, route in drawn.items():
        points[:, offsets[place] : offsets[place + 1]] = torch.tensor([route.path.roads, route.path.times])
    roads, times = ranks.sum(points.to(device)).cpu().numpy()
    return Trips(roads.astype(np.int32), times, offsets), int(reached.sum())


def find_own(
    config: Config, city: City, targets: Targets | None, student: HOSER, network: Network, ranks: Ranks
) -> OwnRoutes | None:
    """As the configuration asks for it; None where the KL is on real trips only, or nobody teaches."""
    distill, optimizer, trips = config.distill, config.optimizer_config, city.trips["train"]
    if targets is None or not distill.own_part:
        return None
    plan = OwnPlan(
        trips=len(trips),
        trips_per_step=optimizer.batch_size * optimizer.accum_steps * ranks.world,
        epochs=optimizer.max_epoch,
        part=distill.own_part,
        every=distill.refresh_every,
        ahead=distill.prefetch,
        seed=config.training.seed,
    )
    times = StepTimes(city.meta.log1p_mean, city.meta.log1p_std)
    max_steps = min(distill.own_max_steps, config.trajectory_encoder_config.max_len)
    drawer = Drawer(student, network, times, max_steps, distill.own_temperature, config.data.angle)
    return OwnRoutes(plan, trips, targets, drawer, ranks)
