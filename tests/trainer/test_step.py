"""The student and the optimiser step: gradients, padding, micro-batches, and what must not matter."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.assemble import build_student
from trainer.clock import Clock
from trainer.config import Config
from trainer.data.city import City
from trainer.data.features import IGNORED, Network
from trainer.data.prepare import prepare
from trainer.data.sample_city import write_sample_city
from trainer.examples import Example, ExampleMaker
from trainer.learner import Learner
from trainer.schedule import learning_rate, make_optimizer
from trainer.step import Objective, Sums, counts, loss_of, measure
from trainer.student.hoser import HOSER
from trainer.teacher.targets import UniformTargets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    folder = tmp_path_factory.mktemp("step")
    write_sample_city(folder / "city", roads=150, trips=80, seed=3)
    return prepare(folder / "city", folder / "cache").city


@pytest.fixture
def student(city: City) -> HOSER:
    torch.manual_seed(1)
    return build_student(Config(), city)


@pytest.fixture(scope="module")
def maker(city: City) -> ExampleMaker:
    return ExampleMaker(Network.of(city.road_map), CPU, 1024, "original", Clock())


@pytest.fixture(scope="module")
def objective(city: City) -> Objective:
    return Objective(0.5, 2.0, city.meta.log1p_mean, city.meta.log1p_std)


def example(maker: ExampleMaker, city: City, *trips: int, guided: bool = True, top_k: int = 0) -> Example:
    targets = UniformTargets() if guided else None
    return maker.make(city.trips["train"], np.array(trips), top_k=top_k, targets=targets)


def test_gradients_reach_every_parameter_in_the_first_and_in_a_later_step(
    student: HOSER, maker: ExampleMaker, city: City, objective: Objective
) -> None:
    """The research code left 2.70 of 4.45 million parameters at their random values."""
    optimizer = make_optimizer(student, Config().optimizer_config)
    trips = tuple(range(20))
    for step in range(3):
        before = {name: p.detach().clone() for name, p in student.named_parameters()}
        Learner(student, optimizer, objective).step([example(maker, city, *trips)])
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None, f"step {step}: {name}"
            # With a zone table as large as the data's, and weights that start at zero only after a step, all must move.
            assert parameter.grad.abs().max() > 0, f"step {step}: {name}"
            assert not torch.equal(before[name], parameter), f"step {step}: {name}"


def test_padding_order_and_batch_mates_change_no_score(student: HOSER, maker: ExampleMaker, city: City) -> None:
    student.eval()
    lengths = city.trips["train"].lengths
    chosen = np.argsort(lengths)[[0, 10, 20, -1]]
    with torch.no_grad():
        together, times = student(example(maker, city, *chosen).features)
        backwards, _ = student(example(maker, city, *chosen[::-1]).features)
        for row, trip in enumerate(chosen):
            alone, alone_times = student(example(maker, city, trip).features)
            steps = int(lengths[trip]) - 1
            real = torch.isfinite(alone[0])
            assert torch.allclose(alone[0][real], together[row, :steps][real], atol=1e-5)
            assert torch.allclose(alone[0][real], backwards[-1 - row, :steps][real], atol=1e-5)
            assert torch.allclose(alone_times[0][real], times[row, :steps][real], atol=1e-5)


def test_the_past_is_all_that_a_step_sees(student: HOSER, maker: ExampleMaker, city: City) -> None:
    student.eval()
    features = example(maker, city, int(city.trips["train"].lengths.argmax())).features
    changed = copy.copy(features)
    object.__setattr__(changed, "roads", features.roads.clone())
    changed.roads[:, 5:] = 0
    with torch.no_grad():
        a, b = student(features)[0], student(changed)[0]
    assert torch.equal(a[:, :5], b[:, :5])
    assert not torch.equal(a[:, 5:], b[:, 5:])


def test_micro_batches_equal_one_batch(student: HOSER, maker: ExampleMaker, city: City, objective: Objective) -> None:
    """Of unequal sizes too: sums are divided by the counts of the whole step."""
    other = copy.deepcopy(student)
    whole = [example(maker, city, *range(12))]
    parts = [example(maker, city, *range(3)), example(maker, city, *range(3, 12))]
    one, _ = Learner(student, make_optimizer(student, Config().optimizer_config), objective).step(whole)
    two, _ = Learner(other, make_optimizer(other, Config().optimizer_config), objective).step(parts)
    assert one.means(objective)["loss"] == pytest.approx(two.means(objective)["loss"], rel=1e-5)
    for (name, a), b in zip(student.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-6), name


def test_one_pass_of_the_road_encoder_has_the_gradient_of_a_pass_for_every_micro_batch(
    student: HOSER, maker: ExampleMaker, city: City, objective: Objective
) -> None:
    plain = copy.deepcopy(student)
    parts = [example(maker, city, *range(3)), example(maker, city, *range(3, 12))]
    Learner(student, make_optimizer(student, Config().optimizer_config), objective).step(parts)
    labelled, guided = (counts(parts[0]) + counts(parts[1])).float()
    for part in parts:
        loss = loss_of(plain, part, objective)
        assert loss.kl is not None
        ((loss.road + loss.time) / labelled + objective.kl_weight * loss.kl / guided).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), objective.max_norm)
    for (name, a), b in zip(student.named_parameters(), plain.named_parameters(), strict=True):
        assert a.grad is not None
        assert b[1].grad is not None
        assert torch.allclose(a.grad, b[1].grad, rtol=1e-3, atol=1e-6), name


def test_measure_equals_a_step_and_changes_nothing(
    student: HOSER, maker: ExampleMaker, city: City, objective: Objective
) -> None:
    before = copy.deepcopy(student.state_dict())
    batch = example(maker, city, *range(6))
    measured = measure(student, [batch], objective)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    stepped, taken = Learner(student, make_optimizer(student, Config().optimizer_config), objective).step([batch])
    assert taken
    assert stepped.means(objective) == pytest.approx(measured.means(objective))


def test_a_non_finite_loss_leaves_the_weights_alone(
    student: HOSER, maker: ExampleMaker, city: City, objective: Objective
) -> None:
    with torch.no_grad():
        student.navigator.v_proj.weight[0, 0] = torch.nan
    before = copy.deepcopy(student.state_dict())
    optimizer = make_optimizer(student, Config().optimizer_config)
    sums, taken = Learner(student, optimizer, objective).step([example(maker, city, 0, 1)])
    assert (sums, taken) == (Sums(), False)
    for name, value in student.state_dict().items():
        assert torch.equal(before[name].nan_to_num(9), value.nan_to_num(9)), name


def test_a_filtered_label_costs_no_road_loss(
    student: HOSER, maker: ExampleMaker, city: City, objective: Objective
) -> None:
    everything, nearest = example(maker, city, *range(20)), example(maker, city, *range(20), top_k=1)
    lost = int((nearest.labels.choice == IGNORED).sum() - (everything.labels.choice == IGNORED).sum())
    assert lost > 0
    sums = measure(student, [nearest], objective)
    assert sums.unlabelled == lost
    assert sums.road == 0.0  # one candidate is certain
    assert sums.choices == 0


def test_uniform_targets_are_uniform(maker: ExampleMaker, city: City) -> None:
    made = example(maker, city, *range(5))
    assert made.target is not None
    q = made.target.log_probs.exp()
    count = made.features.candidate_mask.sum(-1)
    assert torch.allclose(q.sum(-1)[count > 0], torch.ones(()), atol=1e-6)
    assert torch.equal((q > 0), made.features.candidate_mask)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = Config().optimizer_config
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(config.learning_rate / 10)
    assert max(rates) == rates[9] == rates[10] == config.learning_rate
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < config.learning_rate / 1000


def test_decay_holds_for_matrices_only(student: HOSER, tmp_path: Path) -> None:
    decayed, free = make_optimizer(student, Config().optimizer_config).param_groups
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert all(p.dim() < 2 for p in free["params"])
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(free["params"]) == len(list(student.parameters()))
