"""What the student says of paths step by step, against what it says of whole paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_search import Walker
from tests.trainer.datasets import random_map
from tests.trainer.small_student import student_of
from tests.trainer.test_search import demand_of, plain_routes, routes_of
from trainer.data.features import Network
from trainer.generate import kernel
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.route import Path
from trainer.generate.search import KINDS, Node, SearchSettings
from trainer.student import prefixes
from trainer.student.hoser import HOSER

START = 1_211_079_838  # a Sunday


def both(
    seed: int, max_steps: int, places: int = 4096, attend: prefixes.Attend = kernel.attend
) -> tuple[Walker, Expander, HOSER]:
    """A plain and a fast form of the same student on a small map with dead ends."""
    rng = np.random.default_rng(seed)
    road_map, _, _ = random_map(rng, 30, 70)
    student = student_of(rng, road_map.roads, older_time=bool(seed % 2)).eval()
    network = Network.of(road_map)
    walker = Walker(student, network, log1p_mean=2.0, log1p_std=0.6, max_steps=max_steps)
    fast = Expander(student, network, StepTimes(2.0, 0.6), max_steps=max_steps, places=places, attend=attend)
    return walker, fast, student


def check(walker: Walker, node: Node, destination: int) -> None:
    assert node.answer
    metres, options = node.answer
    path = node.path()
    [plain] = walker.next_roads([path], destination)
    roads, log_probs, seconds = ([option[i] for option in options] for i in range(3))
    assert roads == plain.roads.tolist()
    assert log_probs == pytest.approx(plain.log_probs.tolist(), abs=1e-5)
    assert np.abs(np.array(seconds) - plain.seconds).max(initial=0) <= 1  # a half second may be rounded either way
    assert metres == float(walker.network.distance_m(torch.tensor(path.roads[-1]), torch.tensor(destination)))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    max_steps=st.sampled_from([1, 2, 3, 5, 1024]),
    rows=st.integers(1, 11),
    attend=st.sampled_from([prefixes.attend, kernel.attend]),
)
def test_trees_of_paths(seed: int, max_steps: int, rows: int, attend: prefixes.Attend) -> None:
    """Grows paths at random, some from the same node, some dropped, and compares every answer."""
    walker, expander, _ = both(seed, max_steps, 64, attend)
    rng = np.random.default_rng(seed)
    live: list[tuple[Node, int]] = []
    for _ in range(8):
        live = [*live[:20], (Node(int(rng.integers(30)), START + int(rng.integers(10**6)), 0.0, None), 7)]
        chosen = set(rng.permutation(len(live))[:rows].tolist())
        some = [live[i] for i in chosen]
        expander.expand([(node, end, bool((root(node).time // 86_400 + 3) % 7 >= 5)) for node, end in some])
        live = [each for i, each in enumerate(live) if i not in chosen]
        for node, end in some:
            check(walker, node, end)
            live += [(Node(road, node.time + s, 0.0, node), end) for road, _, s in node.answer[1]]  # type: ignore[index]
        rng.shuffle(live)  # type: ignore[arg-type]


def root(node: Node) -> Node:
    return root(node.parent) if node.parent else node


def test_nothing_is_kept_of_paths_that_are_dropped() -> None:
    _, expander, _ = both(1, 1024)
    free = expander.free
    demand = demand_of(np.random.default_rng(1), 30, 40)
    for kind in KINDS:
        routes_of(expander, demand, SearchSettings(kind))
        assert expander.free == free


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_steps", [3, 1024])
def test_routes_are_the_plain_ones(kind: str, max_steps: int) -> None:
    for seed in range(4):
        walker, expander, _ = both(seed, max_steps)
        demand = demand_of(np.random.default_rng(seed), 30, 25)
        how = SearchSettings(kind, 40, seed=seed)
        ours, plain = routes_of(expander, demand, how), plain_routes(walker, demand, how)
        for a, b in zip(ours, plain, strict=True):
            assert (a.path.roads, a.path.times, a.reached, a.expansions) == (
                b.path.roads, b.path.times, b.reached, b.expansions,
            )  # fmt: skip
            assert a.path.log_prob == pytest.approx(b.path.log_prob, abs=1e-4)


@pytest.mark.parametrize("attend", [prefixes.attend, kernel.attend])
@pytest.mark.parametrize("kind", KINDS)
def test_company_changes_nothing(kind: str, attend: prefixes.Attend) -> None:
    """Bit for bit: any number at once, in any order, with room for few."""
    demand = demand_of(np.random.default_rng(7), 30, 40)
    how = SearchSettings(kind, 40)
    _, expander, student = both(2, 1024, attend=attend)
    expected = routes_of(expander, demand, how)
    for nodes, places in ((1, 4096), (7, 4096), (64, 60)):
        _, other, _ = both(2, 1024, places, attend)
        assert routes_of(other, demand, how, nodes) == expected
    assert not student.training


@pytest.mark.slow
def test_ties_of_a_student_that_knows_nothing() -> None:
    """All roads alike: the order in which paths were found decides, as in the plain search."""
    walker, expander, student = both(3, 1024)
    with torch.no_grad():
        student.navigator.v_proj.weight.zero_()
    demand = demand_of(np.random.default_rng(3), 30, 60)
    for kind in KINDS:
        how = SearchSettings(kind, 25)
        ours, plain = routes_of(expander, demand, how), plain_routes(walker, demand, how)
        assert [route.path.roads for route in ours] == [route.path.roads for route in plain]


def test_a_path_of_one_road() -> None:
    _, expander, _ = both(4, 1024)
    demand = demand_of(np.random.default_rng(4), 30, 5)
    same = type(demand)(demand.origins, demand.origins, demand.starts, demand.sources)
    for kind in KINDS:
        for i, route in enumerate(routes_of(expander, same, SearchSettings(kind))):
            assert route.path == Path((int(demand.origins[i]),), (int(demand.starts[i]),))
            assert (route.reached, route.expansions) == (True, 0)
