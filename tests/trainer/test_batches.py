"""Batches of trips: collation against slices, weekends against the calendar, epochs as permutations."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.datasets import trips_of
from trainer.data.batches import collate, epoch_order, in_order, is_weekend, truncated

lengths_of_trips = st.lists(st.integers(2, 9), min_size=1, max_size=7)


@settings(deadline=None, max_examples=100, database=None)
@given(lengths_of_trips, st.integers(1, 10), st.data())
def test_collate_keeps_the_last_steps(lengths: list[int], max_steps: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    road_lists = [rng.integers(1, 99, n).tolist() for n in lengths]
    time_lists = [(1_211_000_000 + np.cumsum(rng.integers(0, 90_000, n))).tolist() for n in lengths]
    trips = trips_of(road_lists, time_lists)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9)))
    batch = collate(trips, chosen, max_steps)
    assert batch.trip.tolist() == chosen.tolist()
    width = max(len(road_lists[i][-max_steps - 1 :]) for i in chosen)
    for row, i in enumerate(chosen):
        roads, times = road_lists[i][-max_steps - 1 :], time_lists[i][-max_steps - 1 :]
        padding = [0] * (width - len(roads))
        assert batch.roads[row].tolist() == roads + padding
        assert batch.times[row].tolist() == times + padding
        assert batch.steps[row] == len(roads) - 1
        # The first point of the whole trip decides, also when it was cut away.
        assert bool(batch.weekend[row]) == (datetime.fromtimestamp(time_lists[i][0], UTC).weekday() >= 5)
    assert truncated(trips, max_steps) == sum(n - 1 > max_steps for n in lengths)


def test_a_batch_moves_as_a_whole() -> None:
    batch = collate(trips_of([[1, 2]], [[5, 6]]), np.array([0]), 10).to(torch.device("meta"))
    assert {x.device.type for x in (batch.roads, batch.times, batch.steps, batch.weekend)} == {"meta"}


@settings(deadline=None, max_examples=200, database=None)
@given(st.lists(st.integers(-3_000_000_000, 9_000_000_000), min_size=1, max_size=20))
def test_weekends_against_the_calendar(seconds: list[int]) -> None:
    expected = [datetime.fromtimestamp(s, UTC).weekday() >= 5 for s in seconds]
    assert is_weekend(np.array(seconds)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "weekend"),
    [
        ("2008-05-16T23:59:59", False),
        ("2008-05-17T00:00:00", True),
        ("2008-05-18T23:59:59", True),
        ("2008-05-19T00:00:00", False),
        ("1969-12-28T12:00:00", True),
    ],
)
def test_weekends_begin_and_end_at_midnight(text: str, weekend: bool) -> None:
    assert bool(is_weekend(np.array(np.datetime64(text, "s").astype(np.int64)))) is weekend


@settings(deadline=None, max_examples=100, database=None)
@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 2**62), st.integers(0, 40))
def test_an_epoch_visits_each_trip_once(trips: int, batch_size: int, seed: int, epoch: int) -> None:
    order = epoch_order(trips, batch_size, seed, epoch)
    assert sorted(np.concatenate(order).tolist()) == list(range(trips))
    assert [len(batch) for batch in order[:-1]] == [batch_size] * (len(order) - 1)
    assert 1 <= len(order[-1]) <= batch_size
    again = epoch_order(trips, batch_size, seed, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(order, again, strict=True))


def test_orders_differ_by_seed_and_epoch() -> None:
    orders = [np.concatenate(epoch_order(500, 32, seed, epoch)).tolist() for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert list(range(500)) not in orders


@pytest.mark.parametrize(("trips", "batch_size"), [(1, 1), (10, 3), (9, 3), (2, 50)])
def test_in_order(trips: int, batch_size: int) -> None:
    batches = [batch.tolist() for batch in in_order(trips, batch_size)]
    assert [trip for batch in batches for trip in batch] == list(range(trips))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
