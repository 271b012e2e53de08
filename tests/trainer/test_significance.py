"""Tests and corrections against their definitions."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.compare.significance import (
    centred,
    cliffs_delta,
    corrected,
    least_p,
    rank_biserial,
    seeds_test,
    signed_rank,
)


def slow_signed_rank(differences: list[float]) -> float:
    """Exact, of distinct sizes: all ways to give signs to the ranks."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    sums = np.array(
        [sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in product((0, 1), repeat=len(ranks))]
    )
    found = ranks[np.array(differences) > 0].sum()
    return min(1.0, 2 * min((sums <= found).mean(), (sums >= found).mean()))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 10])
def test_signed_ranks_equal_all_signs(count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(10):
        differences = rng.normal(0.5, 1, count)
        assert signed_rank(differences) == pytest.approx(slow_signed_rank(differences.tolist()))


def test_zeros_are_left_out() -> None:
    assert signed_rank(np.array([1.0, 2, 3, 0, 0])) == signed_rank(np.array([1.0, 2, 3])) == 0.25
    assert signed_rank(np.zeros(5)) == 1
    assert signed_rank(np.zeros(0)) is None


def test_rank_biserial_by_hand() -> None:
    # Ranks 1, 2, 3, 4 of 0.5, -1, 2, -3: (1 + 3 - 2 - 4) / 10.
    assert rank_biserial(np.array([0.5, -1, 2, -3, 0])) == pytest.approx(-0.2)
    assert rank_biserial(np.array([1.0, 2])) == 1
    assert rank_biserial(np.array([-1.0, -1])) == -1
    assert rank_biserial(np.array([1.0, -1])) == 0  # equal sizes share a rank
    assert rank_biserial(np.zeros(3)) == 0
    assert rank_biserial(np.zeros(0)) is None


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_cliffs_delta_equals_counting(mine: list[int], theirs: list[int]) -> None:
    pairs = list(product(mine, theirs))
    expected = (sum(a > b for a, b in pairs) - sum(a < b for a, b in pairs)) / len(pairs)
    assert cliffs_delta(np.array(mine, float), np.array(theirs, float)) == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [2, 3, 4, 6])
def test_no_test_over_seeds_gives_less_than_its_least_p(seeds: int) -> None:
    low, high = np.arange(seeds) / 10, 5 + np.arange(seeds) / 7
    for paired in (True, False):
        assert seeds_test(high, low, paired) == pytest.approx(least_p(seeds, seeds, paired))
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(size=(2, seeds))
        assert (seeds_test(a, b, True) or 0) >= least_p(seeds, seeds, True) - 1e-12
        assert (seeds_test(a, b, False) or 0) >= least_p(seeds, seeds, False) - 1e-12


def test_unpaired_seeds_equal_all_assignments() -> None:
    mine, theirs = np.array([1.0, 4.0, 6.0]), np.array([2.0, 3.0, 5.0, 7.0])
    every = np.concatenate([mine, theirs])
    ranks = np.argsort(np.argsort(every))
    sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(7), 3)])
    found = ranks[:3].sum()
    expected = min(1.0, 2 * min((sums <= found).mean(), (sums >= found).mean()))
    assert seeds_test(mine, theirs, False) == pytest.approx(expected)


def test_one_seed_tests_nothing() -> None:
    assert seeds_test(np.array([1.0]), np.array([2.0, 3.0]), False) is None


def test_centred_p_by_hand() -> None:
    drawn = np.array([1.0, 2.0, 3.0, 4.9, np.nan])  # 2.5 observed: distances 1.5, .5, .5, 2.4
    assert centred(drawn, 2.5) == pytest.approx(1 / 5)
    assert centred(drawn, 0.5) == pytest.approx(1.0)  # all lie at least so far away


def slow_holm(values: list[float]) -> list[float]:
    """By the definition: the smallest level at which the step-down procedure rejects each."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    found = [0.0] * len(values)
    for step, i in enumerate(order):
        before = found[order[step - 1]] if step else 0.0
        found[i] = min(1.0, max(before, (len(values) - step) * values[i]))
    return found


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_equals_the_definition(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    found = corrected(values, "holm")
    assert [value for value in found if value is not None] == pytest.approx(slow_holm(known))
    assert [value is None for value in found] == [value is None for value in values]


def test_corrections_by_hand() -> None:
    values = [0.01, 0.04, None, 0.03]
    assert corrected(values, "holm") == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06)]
    assert corrected(values, "bh") == [pytest.approx(0.03), pytest.approx(0.04), None, pytest.approx(0.04)]
    assert corrected([None], "holm") == [None]


def test_least_p_by_hand() -> None:
    assert least_p(3, 3, True) == 0.25
    assert least_p(3, 3, False) == 2 / math.comb(6, 3) == 0.1
