"""The store: what it counts of what it hears."""

from __future__ import annotations

import pytest

from teacher_server.metrics import Distribution, Duration, Metrics, shares
from teacher_server.oip_statistics import statistics_of
from teacher_server.recent import WINDOW, Recent, Second, busy_by_second, quantiles, quantiles_by_second
from teacher_server.reports import CANCELLED, OK, BatchReport, RequestReport, State

BATCH = BatchReport(requests=3, rows=4, positions=5, row_tokens=40, tokens=30, padded=60, seconds=0.02)


def answered(total_s: float = 0.01, positions: int = 7) -> RequestReport:
    return RequestReport(OK, total_s, positions, queue_s=0.002, compute_s=0.006)


def test_a_distribution_counts_a_value_at_its_bound_below_it() -> None:
    values = Distribution([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        values.observe(value)
    assert (values.counts, values.count, values.sum) == ([2, 2, 1], 5, 14.0)


def test_only_answered_requests_are_in_the_times() -> None:
    metrics = Metrics()
    metrics.on_request(answered())
    metrics.on_request(RequestReport("Overloaded", 0.5, 9))
    metrics.on_request(RequestReport(CANCELLED, 0.25, 9))
    assert metrics.outcomes == {OK: 1, "Overloaded": 1, CANCELLED: 1}
    assert (metrics.failures, metrics.failed_seconds, metrics.positions) == (2, 0.75, 7)
    assert [times.sum for times in (metrics.request_s, metrics.queue_s, metrics.compute_s)] == [0.01, 0.002, 0.006]


def test_batches_are_summed_and_kept_by_size() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.on_batch(BATCH)
    assert (metrics.rows, metrics.row_tokens, metrics.tokens, metrics.padded_tokens) == (8, 80, 60, 120)
    assert metrics.batches == {8: Duration(2, 0.04)}  # five positions round up to eight
    assert metrics.batch_requests.sum == 6


def test_trouble_is_counted_and_the_budget_follows() -> None:
    metrics = Metrics(token_budget=8192)
    metrics.on_out_of_memory(4096)
    for state in (State.READY, State.STUCK, State.READY):
        metrics.observer.state(state)
    assert (metrics.out_of_memory_count, metrics.token_budget, metrics.watchdog_trips) == (1, 4096, 1)


def test_the_statistics_are_of_the_same_store() -> None:
    metrics = Metrics()
    assert statistics_of(metrics, "teacher", "1")["last_inference"] == 0
    metrics.on_request(answered())
    metrics.on_request(RequestReport("TooLarge", 0.5, 9))
    metrics.on_batch(BATCH)
    stats = statistics_of(metrics, "teacher", "1")
    assert (stats["inference_count"], stats["execution_count"]) == (7, 1)
    assert stats["inference_stats"]["success"] == {"count": 1, "ns": 10_000_000}
    assert stats["inference_stats"]["fail"] == {"count": 1, "ns": 500_000_000}
    assert stats["batch_stats"] == [{"batch_size": 8, "compute_infer": {"count": 1, "ns": 20_000_000}}]
    assert stats["last_inference"] > 1e12


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_recent_past_is_whole_seconds_and_ends() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.request(answered())
    recent.request(RequestReport("Overloaded", 0.5, 9))
    recent.batch(BATCH)
    assert not any(second.requests for second in recent.series())  # the second that runs is not whole
    clock.now += 2.5
    recent.request(answered(positions=1))
    series = recent.series()
    assert len(series) == WINDOW
    last = series[-2]
    assert (last.requests, last.failed, last.positions, last.batches, last.busy) == (1, 1, 7, 1, 0.02)
    assert series[-1].requests == 0
    clock.now += WINDOW
    assert sum(second.requests for second in recent.series()) == 1
    clock.now += 1
    assert sum(second.requests for second in recent.series()) == 0


def test_recent_memory_is_bounded() -> None:
    clock = Clock()
    recent = Recent(clock)
    for _ in range(3 * WINDOW):
        recent.request(answered())
        clock.now += 1
    assert len(recent._seconds) == WINDOW + 1
    assert all(second.requests for second in recent.series())


def test_quantiles_are_right_to_a_few_per_cent() -> None:
    clock = Clock()
    recent = Recent(clock)
    for milliseconds in range(1, 1001):
        recent.request(answered(milliseconds / 1000))
    clock.now += 1
    found = quantiles(recent.series(), [0.5, 0.95, 0.99])
    assert found == pytest.approx([0.5, 0.95, 0.99], rel=0.026)


def test_shares_of_nothing_are_none() -> None:
    assert shares(0, 0, 0) == (0.0, 0.0)
    assert shares(row_tokens=100, tokens=60, padded=80) == (0.25, 0.4)


def test_quantiles_of_each_second_are_its_own() -> None:
    clock = Clock()
    recent = Recent(clock)
    for latencies in ((0.1, 0.2), (), (0.4,)):
        for latency in latencies:
            recent.request(answered(latency))
        clock.now += 1
    found = quantiles_by_second(recent.series()[-3:], [0.5, 1.0])
    assert found[0] == pytest.approx([0.1, 0.2], rel=0.026)
    assert found[1] == [None, None]
    assert found[2] == pytest.approx([0.4, 0.4], rel=0.026)


def test_a_long_batch_kept_the_device_busy_before_its_end() -> None:
    busy = [0.25, 0.0, 0.0, 2.5, 0.0, 0.5]
    seconds = [Second(at, busy=share) for at, share in enumerate(busy)]
    assert busy_by_second(seconds) == [0.25, 0.5, 1.0, 1.0, 0.0, 0.5]


def test_quantiles_of_nothing_are_nothing() -> None:
    assert quantiles(Recent().series(), [0.5, 0.99]) == [None, None]


def test_extreme_latencies_have_a_place() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.request(answered(0.0))
    recent.request(answered(1e9))
    clock.now += 1
    low, high = quantiles(recent.series(), [0.01, 1.0])
    assert low is not None
    assert high is not None
    assert low < 1.1e-4
    assert high > 90
