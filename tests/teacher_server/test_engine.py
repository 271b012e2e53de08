"""The engine against the plain thing: each position alone, float64, softmax over the whole vocabulary."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teacher_server import engine as engine_module
from teacher_server.engine import Engine, choose_device, choose_dtype
from teacher_server.packing import PackedBatch, ScoreWork
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


@given(works(), st.integers(1, 300))
def test_equals_the_full_softmax_of_each_position_alone(work: ScoreWork, budget: int) -> None:
    [got] = answer(ENGINE, packer(budget), [work])
    np.testing.assert_allclose(np.exp(got), np.exp(oracle(MODEL, work)), atol=1e-5, rtol=0)
    np.testing.assert_allclose(got, oracle(MODEL, work), atol=1e-5, rtol=2e-6)


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


def test_a_batch_wider_than_the_block_size_is_refused() -> None:
    wide = np.zeros((1, BLOCK_SIZE + 1), np.int32)
    one = np.zeros(1, np.int64)
    batch = PackedBatch(wide, one, one, np.array([1, 2], np.int32), one + 2)
    with pytest.raises(ValueError, match="exceeds the block size"):
        ENGINE.log_probs(batch)
