"""The student on CUDA against itself on the CPU, and against the numbers of the original code."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.datasets import random_map
from tests.trainer.golden_data import Golden, golden_features
from tests.trainer.test_golden import gap, golden_demand
from tests.trainer.test_student import assert_same_gradients, student_of, trips_on, weighted
from trainer.compiled import compile_student
from trainer.config import Config, Training
from trainer.data.features import Features, Labels, Network
from trainer.data.trip_text import format_times
from trainer.examples import Example
from trainer.generate.demand import Demand
from trainer.generate.draw import Drawer
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.lock_step import LockStep
from trainer.generate.search import SearchSettings
from trainer.learner import Learner
from trainer.precision import precision_for
from trainer.schedule import make_optimizer
from trainer.step import Objective
from trainer.student.hoser import HOSER

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OBJECTIVE = Objective(0.0, 1.0, 3.0, 1.0)


def on_gpu(features: Features) -> Features:
    return Features(**{name: value.to(CUDA) for name, value in vars(features).items()})


def test_golden_embeddings_logits_and_times(golden_case: Golden) -> None:
    features, _ = golden_features(golden_case.network.to(CUDA), golden_case.batch.to(CUDA))
    student = copy.deepcopy(golden_case.student).to(CUDA)
    with torch.no_grad():
        embeddings, (logits, times) = student.embed(), student(features)
    roads, numbers, mask = embeddings.roads.cpu(), golden_case.numbers, features.candidate_mask.cpu()
    assert gap(roads, numbers["out.road_embedding"], torch.ones_like(roads, dtype=torch.bool)) <= 1e-4
    assert gap(logits.cpu(), numbers["out.logits"], mask) <= 1e-4
    assert gap(times.cpu(), numbers["out.time_pred"], mask) <= 1e-4
    for name, value in vars(golden_case.features).items():
        ours = getattr(features, name).cpu()
        assert torch.allclose(ours.double(), value.double(), rtol=1e-6, atol=2e-6), name


def test_golden_searches(golden_case: Golden) -> None:
    """The roads and times of all 24 searches."""
    cases: list[dict[str, Any]] = golden_case.search["search"]  # type: ignore[assignment]
    times = StepTimes(golden_case.search["log1p_mean"], golden_case.search["log1p_std"])  # type: ignore[arg-type]
    student = copy.deepcopy(golden_case.student).to(CUDA)
    expander = Expander(student, golden_case.network.to(CUDA), times, max_steps=1024)
    for most in sorted({case["max_search_step"] for case in cases}):
        some = [case for case in cases if case["max_search_step"] == most]
        searches = LockStep(expander, golden_demand(some), SearchSettings(max_expansions=most))
        found = {trip.index: trip.route for trip in searches.run(range(len(some)))}
        for index, case in enumerate(some):
            assert (route := found[index]) is not None
            assert list(route.path.roads) == case["roads"]
            assert format_times(np.asarray(route.path.times)) == case["times"]


@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_gradients(grad_checkpoint: bool) -> None:
    rng = np.random.default_rng(7)
    roads, features = trips_on(rng, 40, 30)
    plain = student_of(rng, roads, older_time=False, grad_checkpoint=grad_checkpoint)
    student = copy.deepcopy(plain).to(CUDA)
    ours, theirs, mask = student(on_gpu(features)), plain(features), features.candidate_mask
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.cpu()[mask], b[mask], atol=1e-5)
    weighted((ours[0].cpu(), ours[1].cpu()), mask, 0).backward()
    weighted(theirs, mask, 0).backward()
    for parameter in student.parameters():
        assert parameter.grad is not None
    assert_same_gradients(student.cpu(), plain)


def learner_and_example(kind: str, device: torch.device) -> tuple[Learner, Example]:
    rng = np.random.default_rng(1)
    roads, features = trips_on(rng, 24, 20)
    student = student_of(np.random.default_rng(1), roads, older_time=False).to(device)
    if device == CUDA:
        features = on_gpu(features)
    choice = torch.where(features.candidate_mask.any(-1), 0, -100)
    example = Example(features, Labels(choice, torch.full_like(choice, 30)), None)
    optimizer = make_optimizer(student, Config().optimizer_config)
    return Learner(student, optimizer, OBJECTIVE, precision=precision_for(kind, device)), example


def steps(learner: Learner, example: Example, count: int = 5) -> list[float]:
    losses = []
    for _ in range(count):
        sums, taken = learner.step([example])
        assert taken
        losses.append(sums.means(OBJECTIVE)["loss"] or 0.0)
    return losses


@pytest.mark.parametrize(("kind", "bound"), [("off", 1e-4), ("fp16", 2e-2), ("bf16", 2e-2)])
def test_steps_go_where_they_go_on_a_cpu(kind: str, bound: float) -> None:
    found = steps(*learner_and_example(kind, CUDA))
    np.testing.assert_allclose(found, steps(*learner_and_example("off", CPU)), rtol=bound)
    assert found[-1] < found[0]


def test_a_scale_that_overflows_is_halved_and_the_step_taken() -> None:
    learner, example = learner_and_example("fp16", CUDA)
    learner.precision.scaler.load_state_dict(learner.precision.scaler.state_dict() | {"scale": 2.0**40})
    _, taken = learner.step([example])
    assert taken
    assert learner.precision.scaler.get_scale() < 2.0**40


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_steps_are_those_of_the_plain_student(mode: str) -> None:
    sizes = [(17, 12), (12, 20), (20, 14), (17, 12)]
    cases = [trips_on(np.random.default_rng(seed), trips, longest) for seed, (trips, longest) in enumerate(sizes)]
    plain = student_of(np.random.default_rng(5), cases[0][0], older_time=False).to(CUDA)
    student: HOSER = copy.deepcopy(plain)
    asked = Training(torch_compile=True, torch_compile_mode=mode)  # type: ignore[arg-type]
    assert compile_student(student, asked) is None
    learners = [Learner(each, make_optimizer(each, Config().optimizer_config), OBJECTIVE) for each in (student, plain)]
    for _, features in cases:
        choice = torch.where(features.candidate_mask.any(-1), 0, -100)
        example = Example(on_gpu(features), Labels(choice.to(CUDA), torch.full_like(choice, 30).to(CUDA)), None)
        ours, theirs = (steps(learner, example, 1) for learner in learners)
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_own_routes_are_drawn_in_the_same_way_twice() -> None:
    rng = np.random.default_rng(5)
    road_map, _, _ = random_map(rng, 30, 90)
    student = student_of(rng, road_map.roads, older_time=False).to(CUDA)
    ends = rng.integers(0, road_map.roads, (2, 50))
    demand = Demand(ends[0], ends[1], rng.integers(0, 86_400, 50), np.arange(50))
    drawer = Drawer(student, Network.of(road_map).to(CUDA), StepTimes(2.0, 0.6), longest=40, temperature=1.0)
    first, again, other = (
        {i: route.path.roads for i, route in drawer.routes(demand, range(50), seed).items()} for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
