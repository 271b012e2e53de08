"""The engine against the plain thing: each position alone, float64, softmax over the whole vocabulary."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_server import engine as engine_module
from teacher_server.engine import Engine, choose_device, choose_dtype
from teacher_server.packing import Packer
from teacher_server.rows import ScoreWork
from tests.teacher_server.scoring import (
    BLOCK_SIZE,
    CELLS,
    SPECIAL,
    answer,
    oracle,
    packer,
    tiny_engine,
    tiny_model,
    work_of,
    works,
)

MODEL = tiny_model()
ENGINE = tiny_engine(MODEL)


@settings(deadline=None)
@given(works(), st.integers(1, 300))
def test_equals_the_full_softmax_of_each_position_alone(work: ScoreWork, budget: int) -> None:
    [got] = answer(ENGINE, packer(budget), [work])
    np.testing.assert_allclose(np.exp(got), np.exp(oracle(MODEL, work)), atol=1e-5, rtol=0)
    np.testing.assert_allclose(got, oracle(MODEL, work), atol=1e-5, rtol=2e-6)


@settings(deadline=None)
@given(st.lists(works(max_histories=3), min_size=2, max_size=4), st.integers(20, 300), st.randoms())
def test_batch_mates_order_and_budget_change_nothing(batch: list[ScoreWork], budget: int, random: object) -> None:
    alone = [answer(ENGINE, packer(10_000), [work])[0] for work in batch]
    order = list(range(len(batch)))
    random.shuffle(order)  # type: ignore[attr-defined]
    together = answer(ENGINE, packer(budget), [batch[i] for i in order])
    for place, i in enumerate(order):
        np.testing.assert_allclose(together[place], alone[i], atol=1e-5, rtol=2e-6)


def test_a_position_with_one_candidate_is_exactly_certain() -> None:
    [got] = answer(ENGINE, packer(), [work_of([[1, 2, 3]], [[[7], [7, 7], []]])])
    assert got[0] == 0.0
    np.testing.assert_allclose(got[1:], np.log(0.5), atol=1e-6)


def test_pad_is_never_read() -> None:
    model = copy.deepcopy(MODEL)
    model.transformer["wte"].weight[SPECIAL.pad] = torch.linspace(-1e3, 1e4, 16)
    ragged = work_of([[1], [2, 3, 4, 5, 6, 7, 8]], [[[1, 2]], [[3, 4, 5]] * 7])
    [got] = answer(tiny_engine(model), packer(), [ragged])
    np.testing.assert_array_equal(got, answer(ENGINE, packer(), [ragged])[0])


def test_many_candidates_are_gathered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_of([[1, 2, 3]], [[list(range(CELLS)), [4, 9, 4]]])
    [whole] = answer(ENGINE, packer(), [work])
    monkeypatch.setattr(engine_module, "GATHERED_AT_ONCE", 3 * 16)
    [parts] = answer(ENGINE, packer(), [work])
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_stays_near(dtype: torch.dtype, bound: float) -> None:
    engine = Engine(copy.deepcopy(MODEL), torch.device("cpu"), dtype)
    work = work_of([[1, 2, 3, 4], [9] * BLOCK_SIZE], [[[1, 2, 3]] * 4, [[5, 6]] * 3])
    [got] = answer(engine, packer(), [work])
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.exp(got), np.exp(oracle(MODEL, work)), atol=bound)


def test_weights_are_held_in_the_compute_type_and_stay_tied() -> None:
    model = copy.deepcopy(MODEL)
    engine = Engine(model, torch.device("cpu"), torch.float16)
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert model.lm_head.weight is model.transformer["wte"].weight
    assert engine.compute_type == "float16"


def test_an_output_that_is_not_finite_is_an_error() -> None:
    model = copy.deepcopy(MODEL)
    model.transformer["wte"].weight[3] = 1e30
    engine = Engine(model, torch.device("cpu"), torch.float32)
    with pytest.raises(ArithmeticError, match="not finite in float32"):
        answer(engine, packer(), [work_of([[3]], [[[1, 2]]])])


def test_choices_of_device_and_dtype() -> None:
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.float16
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(ValueError, match="'tpu'"):
        choose_device("tpu")
    with pytest.raises(ValueError, match="'int8'"):
        choose_dtype("int8", cpu)


def test_cuda_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device"):
        choose_device("cuda")


def test_a_row_longer_than_the_block_size_is_refused() -> None:
    longer = dataclasses.replace(packer(), block_size=BLOCK_SIZE + 1)
    with pytest.raises(ValueError, match="exceeds the block size"):
        answer(ENGINE, longer, [work_of([[1] * BLOCK_SIZE], [[[1, 2]]])])


def test_memory_that_ends_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's allocator, asked for more than there is: both forms of its message are real ones."""

    def huge(*arguments: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(engine_module.trunk, "embed", huge)
    with pytest.raises(MemoryError, match="too small for this batch"):
        answer(ENGINE, packer(), [work_of([[1]], [[[1, 2]]])])


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "^CUDA out of memory$"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "this teacher$"),
    ],
    ids=["cuda", "cpu"],
)
def test_a_device_without_room_for_the_weights_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, told: str
) -> None:
    model = copy.deepcopy(MODEL)

    def full(**there: object) -> None:
        raise raised

    monkeypatch.setattr(model, "to", full)
    with pytest.raises(MemoryError, match=told):
        Engine(model, torch.device("cpu"), torch.float32)


LONG_MODEL = tiny_model(block_size=200, cells=40)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.25), (torch.float16, 0.03)], ids=str
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_alone_or_in_any_batch_for_every_length(dtype: torch.dtype, bound: float, data: st.DataObject) -> None:
    """Lengths 1 to the block size, every window mode, 1 to 64 candidates; half precision stays near."""
    engine = Engine(copy.deepcopy(LONG_MODEL), torch.device("cpu"), dtype)
    policy = Packer(200, 42, 40, data.draw(st.integers(1, 2000)))
    cell = st.integers(0, 39)
    batch = []
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.lists(cell, min_size=1, max_size=3))
        history = (start * 200)[: data.draw(st.integers(1, 199))]
        count = data.draw(st.integers(1, min(len(history), 4)))
        candidates = [data.draw(st.lists(cell, min_size=1, max_size=64)) for _ in range(count)]
        batch.append(work_of([history], [candidates], data.draw(st.sampled_from([0, 1, 3, 7, 50, 199, 1000]))))
    for work, got in zip(batch, answer(engine, policy, batch), strict=True):
        [alone] = answer(engine, dataclasses.replace(policy, token_budget=10_000), [work])
        expected = oracle(LONG_MODEL, work)
        # In half precision, other batch sizes round otherwise: the bound is the one towards float32.
        np.testing.assert_allclose(got, alone, atol=bound, rtol=bound)
        np.testing.assert_allclose(np.exp(got), np.exp(expected), atol=bound)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch's compiler
def test_compiled_in_few_sizes_equals_plain() -> None:
    engine = Engine(copy.deepcopy(MODEL), torch.device("cpu"), torch.float32, compiled=True)
    policy = dataclasses.replace(packer(), bucketed=True)
    for length in (1, 3, 7, BLOCK_SIZE + 3):
        work = work_of([[1, 2, 3] * 5, [4] * length], [[[1, 2, 3]] * 9, [[5, 6]] * length], window=length % 5)
        np.testing.assert_allclose(
            answer(engine, policy, [work])[0], answer(ENGINE, packer(), [work])[0], atol=1e-5, rtol=2e-6
        )
