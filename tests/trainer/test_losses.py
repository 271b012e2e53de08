"""The losses against slow float64 oracles."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.losses import kl_sum, road_loss_sum, time_loss_sum


def softmax64(values: list[float], temperature: float) -> list[float]:
    """Log-probabilities in float64."""
    scaled = [v / temperature for v in values]
    peak = max(scaled)
    total = peak + math.log(math.fsum(math.exp(v - peak) for v in scaled))
    return [v - total for v in scaled]


def kl_oracle(teacher: list[list[float]], student: list[list[float]], temperature: float) -> float:
    total = 0.0
    for q_row, p_row in zip(teacher, student, strict=True):
        log_q, log_p = softmax64(q_row, temperature), softmax64(p_row, temperature)
        total += math.fsum(math.exp(q) * (q - p) for q, p in zip(log_q, log_p, strict=True))
    return total


def padded(rows: list[list[float]], width: int) -> torch.Tensor:
    return torch.tensor([row + [-math.inf] * (width - len(row)) for row in rows])


@st.composite
def ragged_rows(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Teacher and student scores of ragged steps, with gaps of up to 1e4 between logits."""
    counts = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    scale = draw(st.sampled_from([1.0, 30.0, 1e4]))
    score = st.floats(-scale, 0, width=32)
    rows = [draw(st.lists(score, min_size=n, max_size=n)) for n in counts]
    other = [draw(st.lists(score, min_size=n, max_size=n)) for n in counts]
    return rows, other


@settings(deadline=None, max_examples=200)
@given(ragged_rows(), st.floats(0.5, 10), st.integers(0, 3))
def test_kl_equals_the_oracle(
    rows: tuple[list[list[float]], list[list[float]]], temperature: float, extra_padding: int
) -> None:
    teacher, student = rows
    width = max(map(len, teacher)) + extra_padding
    log_q = padded(teacher, width).double().log_softmax(-1).float()
    travelled = [[v for v in row if v > -math.inf] for row in log_q.tolist()]
    ours = float(kl_sum(log_q, padded(student, width), temperature))
    expected = kl_oracle(travelled, student, temperature)
    assert ours == pytest.approx(expected, rel=2e-5, abs=2e-5)


@settings(deadline=None, max_examples=50)
@given(ragged_rows(), st.floats(0.5, 10))
def test_kl_gradient_is_p_minus_q_over_tau(
    rows: tuple[list[list[float]], list[list[float]]], temperature: float
) -> None:
    teacher, student = rows
    width = max(map(len, teacher)) + 1
    log_q = padded(teacher, width).log_softmax(-1)
    logits = padded(student, width).requires_grad_()
    kl_sum(log_q, logits, temperature).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    q, p = (log_q / temperature).softmax(-1), (logits.detach() / temperature).softmax(-1)
    assert torch.allclose(logits.grad, (p - q) / temperature, atol=1e-5)


def test_kl_of_equal_distributions_is_zero_and_never_negative() -> None:
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * 20
    assert float(kl_sum(logits.log_softmax(-1), logits, 2.0)) == pytest.approx(0.0, abs=1e-4)
    other = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    assert float(kl_sum(logits.log_softmax(-1), other, 2.0)) > 0


def test_road_loss_ignores_masked_candidates() -> None:
    narrow = torch.tensor([[1.0, 2.0]])
    wide = torch.tensor([[1.0, 2.0, -math.inf]])
    choice = torch.tensor([1])
    assert float(road_loss_sum(wide, choice)) == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)
    assert torch.equal(road_loss_sum(narrow, choice), road_loss_sum(wide, choice))


def test_time_loss_is_the_relative_error_of_log1p_seconds() -> None:
    mean, std = 2.0, 0.5
    times = torch.tensor([[9.0, 1.0], [0.0, 9.0]])
    choice, seconds = torch.tensor([1, 0]), torch.tensor([19, 0])
    # first: y' = 2.5, y = log 20; second: y' = 2, y = 0, divided by 1 instead
    expected = abs(2.5 - math.log(20)) / math.log(20) + 2.0
    assert float(time_loss_sum(times, choice, seconds, mean, std)) == pytest.approx(expected, abs=1e-6)
