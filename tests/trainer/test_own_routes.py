"""Routes of the student's own: when they are drawn, what is learned from them, and runs that go on from anywhere."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.plain_search import Walker
from trainer.commands.train import make_trainer
from trainer.config import Config, without_effect
from trainer.config_file import config_from
from trainer.data.city import City
from trainer.data.features import IGNORED, Features
from trainer.data.trips import Ints, Trips
from trainer.errors import BadInput, NoAnswer
from trainer.examples import Part
from trainer.generate.route import Path as RoadPath
from trainer.guide import Guide, find_guide
from trainer.own_plan import OwnPlan
from trainer.ranks import Ranks
from trainer.run_folder import RunFolder
from trainer.teacher.targets import Target, Targets, UniformTargets
from trainer.train import Trainer

CPU = torch.device("cpu")


@dataclass
class Opinion:
    """A teacher with a fixed opinion of every road; remembers what it was asked about."""

    roads: list[list[int]] = field(default_factory=list)
    gone: bool = False

    def of(self, trips: Ints, features: Features) -> Target:
        self.roads += [row[:steps].tolist() for row, steps in zip(features.roads, features.steps, strict=True)]
        if self.gone:
            raise NoAnswer("gone")
        scores = torch.sin(features.candidates.double() * 1.7).masked_fill(~features.candidate_mask, -torch.inf)
        valid = features.candidate_mask.any(-1)
        return Target(scores.log_softmax(-1).float().masked_fill(~features.candidate_mask, -torch.inf), valid)


def settings(mode: str, **distill: Any) -> Config:
    return config_from(
        {
            "optimizer_config": {"batch_size": 8, "accum_steps": 2, "max_epoch": 2, "max_norm": 1e6},
            "distill": {"mode": mode, "refresh_every": 3, "own_max_steps": 15, **distill},
            "trajectory_encoder_config": {"dropout": 0.1},
            "profiling": {"log_interval": 1},
        }
    )


def trainer_of(city: City, folder: Path, config: Config, targets: Targets | None = None) -> Trainer:
    torch.manual_seed(3)
    guide = Guide("made", targets or UniformTargets(), None, {})
    run = RunFolder(folder)
    run.last.parent.mkdir(parents=True, exist_ok=True)
    return make_trainer(config, city, run, guide, CPU, Ranks())


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return dict(torch.load(trainer.folder.last, weights_only=True)["model"])


@given(
    trips=st.integers(1, 50),
    size=st.integers(1, 20),
    epochs=st.integers(1, 5),
    part=st.sampled_from([0.2, 0.5, 1.0]),
    every=st.integers(1, 9),
    ahead=st.integers(0, 12),
)
def test_every_step_has_its_routes_in_time(
    trips: int, size: int, epochs: int, part: float, every: int, ahead: int
) -> None:
    plan = OwnPlan(trips, size, epochs, part, every, ahead, seed=1)
    total = epochs * plan.steps_per_epoch
    served = [(step, drawn) for drawn in range(0, total, every) for step in plan.served(drawn)]
    assert [step for step, _ in served] == list(range(total)), "each step once, in order"
    for step, drawn in served:
        assert plan.drawn_at(step) == drawn
        assert drawn <= max(step - ahead, 0), "the step is asked about before its routes are there"
        assert step - ahead - drawn < every, "an older draw than needed"
    for drawn in range(0, total, every):
        places = [place for step in plan.served(drawn) for place in plan.place(step)]
        assert places == list(range(len(plan.sources(drawn))))
    real = [len(each) for each in np.split(np.arange(trips), range(size, trips, size))] * epochs
    assert [plan.count(step) for step in range(total)] == [round(part * each) for each in real]


def drawn_by_hand(trainer: Trainer, steps: Sequence[int]) -> list[RoadPath]:
    """The routes of steps that the first draw serves, by the plain search, one after another."""
    own, meta = trainer.own, trainer.city.meta
    assert own is not None
    student = copy.deepcopy(trainer.learner.student)
    walker = Walker(
        student, trainer.maker.network, log1p_mean=meta.log1p_mean, log1p_std=meta.log1p_std, max_steps=1024
    )
    sources, real = own.plan.sources(0), trainer.city.trips["train"]
    paths = []
    for place in itertools.chain(*(own.plan.place(step) for step in steps)):
        roads, times = real.roads_of(int(sources[place])), real.times_of(int(sources[place]))
        path, visited = RoadPath((int(roads[0]),), (int(times[0]),)), {int(roads[0])}
        rng = np.random.default_rng((own.plan.search_seed(0), place))
        while path.roads[-1] != roads[-1] and len(path.roads) <= own.drawer.longest:
            (found,) = walker.next_roads([path], int(roads[-1]))
            free = [i for i, road in enumerate(found.roads) if int(road) not in visited]
            if not free:
                break
            share = np.exp(found.log_probs[free] / own.drawer.temperature)
            pick = free[int(rng.choice(len(free), p=share / share.sum()))]
            road, seconds = int(found.roads[pick]), int(found.seconds[pick])
            path = RoadPath((*path.roads, road), (*path.times, path.times[-1] + seconds))
            visited.add(road)
        paths.append(path)
    return paths


def trips_of(paths: Sequence[RoadPath]) -> Trips:
    lengths = [len(path.roads) for path in paths]
    roads = np.array([road for path in paths for road in path.roads], dtype=np.int32)
    times = np.array([time for path in paths for time in path.times])
    return Trips(roads, times, np.concatenate([[0], np.cumsum(lengths)]))


@pytest.mark.parametrize("mode", ["on-policy", "mixed"])
def test_a_step_has_the_gradient_that_is_computed_by_hand(city: City, tmp_path: Path, mode: str) -> None:
    """Trip by trip: the real ones' own losses, and the KL of the real ones that keep it and of the drawn ones."""
    config = settings(mode, temperature=2.0, own_temperature=1.5, prefetch=1, **{"lambda": 0.7})
    config = config.model_copy(update={"trajectory_encoder_config": Config().trajectory_encoder_config})
    trainer = trainer_of(city, tmp_path, config, Opinion())
    student = copy.deepcopy(trainer.learner.student)
    paths = drawn_by_hand(trainer, [0])
    assert len(paths) == (16 if mode == "on-policy" else 8)
    examples = trainer._examples()
    ready = trainer._next(examples)
    assert ready is not None
    sums, _ = trainer._step(ready)
    examples.close()

    own = trips_of([path for path in paths if len(path.roads) > 1])
    order = np.random.default_rng((config.training.seed, 0)).permutation(len(city.trips["train"]))[:16]
    real = [(Part(city.trips["train"], order[i : i + 1]), i < 16 - len(paths)) for i in range(16)]
    asked = [(Part(own, np.array([i]), own=True), True) for i in range(len(own))]
    road, time, kl, labelled, guided = (torch.zeros((), dtype=torch.float64) for _ in range(5))
    for part, with_kl in real + asked:
        question = trainer.maker.question(part)
        logits, times = student(question.features)
        mask = question.features.candidate_mask
        if not part.own:
            choice = question.labels.choice
            at = choice != IGNORED
            road = road - logits.double().log_softmax(-1)[at].gather(1, choice[at][:, None]).sum()
            y = times[at].gather(1, choice[at][:, None])[:, 0] * city.meta.log1p_std + city.meta.log1p_mean
            true = torch.log1p(question.labels.seconds[at].float())
            time = time + ((y - true).abs() / true.clamp(min=1)).double().sum()
            labelled += at.sum()
        if with_kl:
            target = Opinion().of(part.chosen, question.features).log_probs.double()
            for b, t in mask.any(-1).nonzero().tolist():
                some = mask[b, t]
                q = (target[b, t, some] / 2).log_softmax(-1)
                p = (logits[b, t, some].double() / 2).log_softmax(-1)
                kl = kl + (q.exp() * (q - p)).sum()
                guided += 1
    ((road + time) / labelled + 0.7 * kl / guided).backward()
    assert (sums.steps, sums.kl_steps) == (int(labelled), int(guided))
    assert sums.own_steps == int(sum(length - 1 for length in own.lengths)) - dead_ends(trainer, own)
    assert (sums.own_steps == sums.kl_steps) == (mode == "on-policy")
    assert sums.kl == pytest.approx(float(kl.detach()), rel=1e-4)
    assert sums.unlabelled == 0
    for (name, fast), plain in zip(trainer.learner.student.named_parameters(), student.parameters(), strict=True):
        assert fast.grad is not None, name
        assert plain.grad is not None, name
        assert torch.allclose(fast.grad, plain.grad, rtol=2e-3, atol=1e-5), name


def dead_ends(trainer: Trainer, trips: Trips) -> int:
    """Steps that stand at a road without a successor: there are none inside a route."""
    last = trips.offsets[1:] - 1
    inner = np.delete(trips.roads, last)
    return int((trainer.maker.network.out_degree.numpy()[inner] == 0).sum())


def test_own_states_alone_reach_every_parameter_but_those_of_times(city: City, tmp_path: Path) -> None:
    trainer = trainer_of(city, tmp_path, settings("on-policy"), Opinion())
    examples = trainer._examples()
    ready = trainer._next(examples)
    examples.close()
    assert ready is not None
    trainer.learner.step([example for example in ready if example.own])  # moves weights that start at zero
    sums, taken = trainer.learner.step([example for example in ready if example.own])
    assert taken
    assert (sums.steps, sums.road, sums.time) == (0, 0.0, 0.0)
    parameters = dict(trainer.learner.student.named_parameters())
    still = {name for name, p in parameters.items() if p.grad is None or not p.grad.abs().max() > 0}
    assert still == {name for name in parameters if "time_estimator" in name}


@pytest.mark.parametrize(("mode", "share"), [("off-policy", 0.0), ("on-policy", 1.0), ("mixed", 0.25)])
def test_what_is_asked_and_counted(city: City, tmp_path: Path, mode: str, share: float) -> None:
    teacher = Opinion()
    trainer = trainer_of(city, tmp_path, settings(mode, **({"own_share": share} if mode == "mixed" else {})), teacher)
    assert trainer.run()
    trips = city.trips["train"]
    real = [tuple(trips.roads_of(i)[:-1].tolist()) for i in range(len(trips))]
    counts = [round(share * n) for n in [16] * (len(trips) // 16) + [len(trips) % 16] * bool(len(trips) % 16)]
    assert trainer.progress.own_trips == 2 * sum(counts)
    assert 0 <= trainer.progress.own_reached <= trainer.progress.own_trips
    kept = 2 * (len(trips) - sum(counts))  # real trips that the KL is on
    one_road = 2 * sum(counts) - (len(teacher.roads) - kept)
    assert 0 <= one_road <= 4, "a trip whose ends are one road has no step; nothing else is missing"
    if mode == "on-policy":
        assert sum(map(len, teacher.roads)) == trainer.progress.own_steps
    if mode == "off-policy":
        assert trainer.own is None
        assert sorted(map(tuple, teacher.roads)) == sorted(real * 2)


def test_a_teacher_that_is_gone_is_counted_for_own_steps_too(city: City, tmp_path: Path) -> None:
    trainer = trainer_of(city, tmp_path, settings("on-policy"), Opinion(gone=True))
    assert trainer.run()
    assert trainer.progress.own_steps == 0
    assert trainer.progress.kl_missed > trainer.progress.own_trips


@pytest.fixture(scope="module")
def undisturbed(city: City, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = trainer_of(city, tmp_path_factory.mktemp("undisturbed"), settings("mixed"))
    assert trainer.run()
    assert trainer.progress.step == 6
    return trainer


@pytest.mark.parametrize("steps", range(8))
def test_a_run_goes_on_bit_for_bit_from_any_step(city: City, undisturbed: Trainer, tmp_path: Path, steps: int) -> None:
    """Step 0 and 3 begin with a draw, the second epoch with step 3. Step 3 and 6 end in a validation."""
    first = trainer_of(city, tmp_path, settings("mixed"))
    first.should_stop = lambda: first.progress.step >= steps
    assert first.run() == (steps > 6)
    again = trainer_of(city, tmp_path, settings("mixed"))
    again.resume()
    assert again.progress.step == min(steps, 6)
    assert again.run()
    found, wanted = weights(again), weights(undisturbed)
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    for name in ("own_trips", "own_reached", "own_steps"):
        assert getattr(again.progress, name) == getattr(undisturbed.progress, name) > 0, name


def test_a_stop_while_routes_are_drawn_saves_the_step_before(city: City, tmp_path: Path) -> None:
    trainer = trainer_of(city, tmp_path, settings("on-policy"))
    asked = itertools.count()
    trainer.should_stop = lambda: next(asked) > 2
    assert not trainer.run()
    assert (trainer.progress.step, trainer.progress.own_trips) == (0, 0)
    trainer.should_stop = lambda: False
    trainer.resume()
    assert trainer.run()


def test_two_ranks_draw_the_routes_of_one(city: City, tmp_path: Path) -> None:
    """Their parts of a draw, put together, are one rank's; a step's are dealt out evenly."""
    own = trainer_of(city, tmp_path, settings("on-policy")).own
    assert own is not None
    whole = own.draw(0, lambda: False)
    halves = []
    for rank in range(2):
        own.ranks = Ranks(rank, 2)
        halves.append(own.draw(0, lambda: False))
    assert halves[0].keys().isdisjoint(halves[1].keys())
    assert halves[0] | halves[1] == whole
    own.ranks = Ranks()
    own.keep(0, whole)
    chosen = np.concatenate([part.chosen for part in own.parts(1, 64)])
    dealt = []
    for rank in range(2):
        own.ranks = Ranks(rank, 2)
        dealt.append(np.concatenate([part.chosen for part in own.parts(1, 64)]))
    assert sorted(np.concatenate(dealt)) == sorted(chosen)
    assert abs(len(dealt[0]) - len(dealt[1])) <= 1


def test_drawing_leaves_the_student_as_it_was(city: City, tmp_path: Path) -> None:
    trainer = trainer_of(city, tmp_path, settings("on-policy"))
    own, student = trainer.own, trainer.learner.student
    assert own is not None
    student.train()
    before = copy.deepcopy(student.state_dict())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    own.draw(0, lambda: False)
    assert student.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())


def test_nobody_teaches_no_own_routes(city: City, tmp_path: Path) -> None:
    guide = Guide("none", None, None, {"kind": "none"})
    trainer = make_trainer(settings("on-policy"), city, RunFolder(tmp_path / "run"), guide, CPU, Ranks())
    assert trainer.own is None


@pytest.mark.parametrize("mode", ["on-policy", "mixed"])
def test_kept_labels_cannot_teach_own_routes(city: City, tmp_path: Path, mode: str) -> None:
    with pytest.raises(BadInput, match=rf"distill\.mode is {mode}, and kept labels know nothing of routes"):
        find_guide("labels", settings(mode), city, tmp_path)


def test_settings_that_the_mode_does_not_use_are_named() -> None:
    off = config_from({"distill": {"refresh_every": 3, "own_share": 0.3}})
    assert without_effect(off) == ["distill.own_share", "distill.refresh_every"]
    assert without_effect(config_from({"distill": {"mode": "on-policy", "own_share": 0.3}})) == ["distill.own_share"]
    assert without_effect(settings("mixed", own_share=0.3)) == []
    for wrong in ({"mode": "sometimes"}, {"own_share": 1.1}, {"refresh_every": 0}, {"own_temperature": 0}):
        with pytest.raises(BadInput):
            config_from({"distill": wrong})
