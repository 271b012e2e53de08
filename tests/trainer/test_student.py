"""The student against its plain form: values and gradients over ragged trips, whatever is cut into parts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.plain_student import plain_embeddings, plain_forward
from tests.trainer.datasets import random_map, random_walks
from tests.trainer.small_student import student_of
from trainer.data.batches import collate
from trainer.data.features import Features, Network, build_features
from trainer.student import graph_attention
from trainer.student.graph_attention import Edges, attend


def trips_on(rng: np.random.Generator, trips: int, longest: int) -> tuple[int, Features]:
    """Trips of 1 to `longest` steps on a random map, some of whose roads are dead ends; how many roads it has."""
    road_map, _, _ = random_map(rng, 30, 60)
    batch = collate(random_walks(rng, road_map, trips, longest + 1), np.arange(trips), 1024)
    destination = batch.roads.gather(1, batch.steps[:, None])[:, 0]
    return road_map.roads, build_features(
        Network.of(road_map), batch.roads[:, :-1], batch.times[:, :-1], batch.steps, destination, batch.weekend
    )


def weighted(out: tuple[Tensor, Tensor], mask: Tensor, seed: int) -> Tensor:
    """One number that depends on every value, each with a weight of its own."""
    torch.manual_seed(seed)
    a, b = torch.randn(2, *mask.shape)
    return (out[0][mask] * a[mask]).sum() + (out[1][mask] * b[mask]).sum()


def assert_same_gradients(ours: nn.Module, plain: nn.Module) -> None:
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=2e-5 * max(float(b.grad.abs().max()), 1)), name


@settings(deadline=None, max_examples=40, database=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9), st.booleans(), st.booleans())
def test_values_and_gradients_are_those_of_the_plain_form(
    seed: int, trips: int, longest: int, older_time: bool, grad_checkpoint: bool
) -> None:
    rng = np.random.default_rng(seed)
    roads, features = trips_on(rng, trips, longest)
    student = student_of(rng, roads, older_time=older_time, grad_checkpoint=grad_checkpoint)
    plain = copy.deepcopy(student)
    ours, theirs, mask = student(features), plain_forward(plain, features), features.candidate_mask
    assert mask.any()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a[mask], b[mask], atol=1e-5)
    assert torch.isneginf(ours[0][~mask]).all()
    weighted(ours, mask, seed).backward()
    weighted(theirs, mask, seed).backward()
    assert_same_gradients(student, plain)


@settings(deadline=None, max_examples=30, database=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(0, 120), st.integers(1, 50))
def test_attention_over_edges_in_pieces(seed: int, nodes: int, pairs: int, piece: int) -> None:
    """Nodes without edges, edges given twice, pieces that end anywhere; float64 against finite differences."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(nodes, (2, pairs), generator=generator)
    edges = Edges.of(index, torch.rand(pairs, 2, generator=generator, dtype=torch.float64), nodes)
    inputs = [
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((nodes, 3), (nodes, 3), (2, 3), (3,))
    ]
    usual = graph_attention.PIECE["cpu"]
    graph_attention.PIECE["cpu"] = piece
    try:
        assert torch.autograd.gradcheck(lambda *x: attend(*x, edges), inputs, fast_mode=True)
    finally:
        graph_attention.PIECE["cpu"] = usual


def test_embeddings_follow_buffers_that_are_loaded_or_replaced() -> None:
    rng = np.random.default_rng(0)
    student = student_of(rng, 20, older_time=False)
    before = student.embed().roads
    state = copy.deepcopy(student.state_dict())
    state["road_network_encoder.intersection_attr"] += 1
    student.load_state_dict(state)
    after = student.embed().roads
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(after, plain_embeddings(student)[0], atol=1e-5)
    student.road_network_encoder.intersection_attr = torch.zeros_like(student.road_network_encoder.intersection_attr)
    assert torch.allclose(student.embed().roads, plain_embeddings(student)[0], atol=1e-5)
    assert torch.allclose(copy.deepcopy(student).embed().roads, student.embed().roads)


def test_leaves_collect_what_goes_back_through_the_encoder() -> None:
    rng = np.random.default_rng(1)
    roads, features = trips_on(rng, 5, 6)
    student = student_of(rng, roads, older_time=False)
    whole = copy.deepcopy(student)
    weighted(whole(features), features.candidate_mask, 0).backward()
    embedded = student.embed()
    leaves = embedded.leaves()
    weighted(student(features, leaves), features.candidate_mask, 0).backward()
    assert all(p.grad is None for p in student.road_network_encoder.parameters())
    embedded.backward(leaves)
    assert_same_gradients(student, whole)


def test_leaves_that_nothing_used_go_nowhere() -> None:
    student = student_of(np.random.default_rng(2), 20, older_time=False)
    embedded = student.embed()
    embedded.backward(embedded.leaves())
    assert all(p.grad is None for p in student.parameters())


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    kept = []
    for grad_checkpoint in (False, True):
        rng = np.random.default_rng(4)
        roads, features = trips_on(rng, 12, 20)
        student = student_of(rng, roads, older_time=False, grad_checkpoint=grad_checkpoint)
        leaves = student.embed().leaves()
        saved: dict[int, int] = {}

        def keep(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = student(features, leaves)
        kept.append(sum(saved.values()))
        out[1].sum().backward()
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("older_time", [False, True])
def test_state_dict_has_the_original_names_only(older_time: bool) -> None:
    """What is derived from buffers is never saved."""
    student = student_of(np.random.default_rng(3), 20, older_time=older_time)
    names = set(student.state_dict())
    student.embed()
    assert set(student.state_dict()) == names
    assert not any("edges" in name or "graphs" in name for name in names)
