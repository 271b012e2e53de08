"""Routes that a student in training draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.trainer.datasets import random_map
from tests.trainer.small_student import student_of
from tests.trainer.test_search import demand_of
from trainer.data.features import Network
from trainer.generate.demand import Demand
from trainer.generate.draw import Drawer
from trainer.generate.expander import StepTimes
from trainer.generate.route import Route
from trainer.student.hoser import HOSER


class Case:
    """A student in training, and trips for it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        road_map, _, _ = random_map(rng, 30, 90)
        self.student: HOSER = student_of(rng, road_map.roads, older_time=False).train()
        self.network = Network.of(road_map)
        self.demand = demand_of(rng, road_map.roads, 50)

    def draw(self, seed: int = 0, demand: Demand | None = None, temperature: float = 1.0) -> list[Route]:
        demand = demand or self.demand
        drawer = Drawer(self.student, self.network, StepTimes(2.0, 0.6), longest=40, temperature=temperature)
        drawn = drawer.routes(demand, range(len(demand)), seed)
        return [drawn[index] for index in range(len(demand))]


@pytest.fixture
def case() -> Case:
    return Case()


def test_the_student_is_left_as_it_was(case: Case) -> None:
    before, state = {n: p.clone() for n, p in case.student.named_parameters()}, torch.get_rng_state()
    case.draw()
    assert case.student.training
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in case.student.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad
        assert parameter.grad is None
    case.student.eval()
    case.draw()
    assert not case.student.training


def test_routes_follow_seed_index_and_weights_only(case: Case) -> None:
    routes = case.draw()
    assert routes == case.draw()
    assert routes != case.draw(seed=1)
    some = Demand(*(column[:7] for column in (*case.demand.ends, case.demand.starts, case.demand.sources)))
    assert case.draw(demand=some) == routes[:7]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert case.draw() == routes
    embeddings = case.student.embed()
    F.mse_loss(embeddings.roads, torch.ones_like(embeddings.roads)).backward()
    with torch.no_grad():
        for parameter in case.student.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    assert case.draw() != routes


def test_roads_come_as_often_as_the_student_says(case: Case) -> None:
    """First steps of many draws of one trip, against the log-probabilities of those routes that end after it."""
    origin = int(case.network.out_degree.argmax())
    following = case.network.successors[origin].tolist()
    n = 4000
    many = Demand(np.full(n, origin), np.full(n, following[0]), np.full(n, 1_211_079_838), np.arange(n))
    routes = case.draw(demand=many)
    straight = [route for route in routes if len(route.path.roads) == 2 and route.reached]
    share = sum(route.path.roads[1] == following[0] for route in routes if len(route.path.roads) > 1) / n
    expected = np.exp(straight[0].path.log_prob)
    assert 0.02 < expected < 0.98
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / n))
