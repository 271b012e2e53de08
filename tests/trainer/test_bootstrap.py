"""Draws against plain loops, and intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.test_distributions import CENTRES, make_trips, slow_histogram, slow_jsd
from trainer.compare.bootstrap import Draws, Histogram, drawn_means
from trainer.data.trips import Trips
from trainer.evaluate.distributions import Measures, histogram, places
from trainer.evaluate.paths import Sphere

RNG = np.random.default_rng(3)
TRIPS = make_trips(
    [[(int(RNG.integers(12)), int(RNG.integers(400))) for _ in range(RNG.integers(1, 9))] for _ in range(17)]
)


def drawn_requests(draws: Draws) -> list[list[int]]:
    """The requests of each draw, as often as they were drawn."""
    counts = np.concatenate([block for _, block in draws.blocks()]).astype(int)
    return [np.repeat(np.arange(draws.requests), each).tolist() for each in counts]


def test_draws_are_of_all_requests_and_always_the_same() -> None:
    draws = Draws(17, 120, seed=4)
    found = drawn_requests(draws)
    assert len(found) == 120
    assert {len(each) for each in found} == {17}
    assert found == drawn_requests(draws)
    assert found != drawn_requests(Draws(17, 120, seed=5))
    # Each request is drawn about equally often: 120 on average, with a standard deviation of 11.
    assert np.abs(np.bincount(np.concatenate(found)) - 120).max() < 45


def test_means_of_draws_equal_loops() -> None:
    values = np.random.default_rng(0).normal(size=(3, 17))
    values[1, 4] = values[2, 9] = np.nan  # these requests count in no run
    draws = Draws(17, 60, seed=0)
    expected = [
        [np.mean([values[run, i] for i in each if i not in (4, 9)]) for each in drawn_requests(draws)]
        for run in range(3)
    ]
    np.testing.assert_allclose(drawn_means(values, draws), expected, rtol=1e-12)


@pytest.mark.parametrize("field", ["distance_km", "step_minutes"])
def test_divergences_of_draws_equal_loops(field: str) -> None:
    """Each draw's trips are measured and counted anew, one after the other."""
    sphere, draws = Sphere.of(CENTRES), Draws(17, 30, seed=1)

    def values(trips: Trips) -> list[float]:
        if field == "distance_km":
            return Measures.of(trips, sphere).distance_km.tolist()
        return [step / 60 for i in range(len(trips)) for step in np.diff(trips.times_of(i)).tolist()]

    real = values(TRIPS.select(np.arange(5)))
    greatest = max(real)
    of = np.arange(17) if field == "distance_km" else np.repeat(np.arange(17), TRIPS.lengths - 1)
    found = Histogram.of(places(np.array(values(TRIPS)), greatest), of, 17, slow_histogram(real, greatest))

    def slow(trips: Trips) -> float:
        return slow_jsd(slow_histogram(values(trips), greatest), slow_histogram(real, greatest))

    expected = [slow(TRIPS.select(np.array(each))) for each in drawn_requests(draws)]
    np.testing.assert_allclose(found.drawn(draws), expected, atol=1e-12)
    assert found.divergence() == pytest.approx(slow(TRIPS), abs=1e-12)


def test_places_are_those_of_the_histogram() -> None:
    values = np.random.default_rng(0).uniform(0, 12, 500)
    values[:3] = 0, 10, 10 / 99
    assert np.bincount(places(values, 10.0), minlength=100).tolist() == histogram(values, 10.0).tolist()


def test_a_draw_without_an_entry_gives_no_number() -> None:
    histogram = Histogram.of(np.array([0]), np.array([0]), 3, [1, 1])
    found = histogram.drawn(Draws(3, 100, seed=0))
    assert 10 < np.isnan(found).sum() < 60  # (2/3)**3 of them do without the only request that has an entry
    low, high = Draws(3, 100, seed=0).interval(found, 0.95)
    assert low == high == pytest.approx(slow_jsd([1, 0], [1, 1]))


def test_seeds_are_drawn_for_each_arm_on_its_own() -> None:
    draws = Draws(5, 400, seed=2)
    first, second = draws.of_seeds(3, 0), draws.of_seeds(3, 1)
    assert np.allclose(first.sum(axis=1), 1)
    assert len(np.unique(first.round(9))) == 4  # drawn 0, 1, 2 or 3 times
    assert not np.array_equal(first, second)
    assert draws.of_seeds(1, 0).tolist() == [[1.0]] * 400
    # The mean of three values varies by their unbiased variance over three.
    values = np.array([1.0, 2.0, 6.0])
    assert (first @ values).var() == pytest.approx(values.var(ddof=1) / 3, rel=0.1)


@pytest.mark.parametrize("seeds", [1, 8])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds: int) -> None:
    """Two arms of known difference; with several seeds these vary more than the trips do."""
    rng, covered, times = np.random.default_rng(0), 0, 200
    for study in range(times):
        trips = rng.normal(0, 1, 60)  # that both arms find hard alike
        arms = [
            difference + trips + rng.normal(0, 0.5, (seeds, 60)) + (rng.normal(0, 0.5, (seeds, 1)) if seeds > 1 else 0)
            for difference in (0.3, 0.0)
        ]
        draws = Draws(60, 200, seed=study)
        weights = [draws.of_seeds(seeds, arm) for arm in range(2)]
        drawn = [(w.T * drawn_means(values, draws)).sum(axis=0) for w, values in zip(weights, arms, strict=True)]
        low, high = draws.interval(drawn[0] - drawn[1], 0.95)
        covered += low <= 0.3 <= high
    assert 0.87 * times < covered < 0.99 * times
