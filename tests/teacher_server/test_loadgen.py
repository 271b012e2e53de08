"""The load generator: its trips, its arithmetic, its two loops on a fake door (the seam), and real runs."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from teacher_server.loadgen import drive as driving
from teacher_server.loadgen.doors import Refused, Times
from teacher_server.loadgen.drive import NOT_SENT, Drive, Load
from teacher_server.loadgen.report import progress_line, report
from teacher_server.loadgen.tally import Tally, percentiles
from teacher_server.loadgen.walks import Shape, Walks, draw_walks
from tests.serving import RunningTeacher, finished

SHAPE = Shape(trips=5, steps=30, window=7, candidates=3)


def places(walks: Walks, columns: int) -> tuple[np.ndarray, np.ndarray]:
    return np.divmod(walks.tokens, columns)


@pytest.mark.parametrize(("rows", "columns"), [(40, 50), (4, 5), (1, 9), (1, 1)])
def test_trips_go_from_cell_to_neighbour_within_the_grid(rows: int, columns: int) -> None:
    walks = draw_walks(SHAPE, rows, columns, np.random.default_rng(0))
    assert walks.tokens.shape == (5, 30)
    assert walks.candidates.shape == (5, 30, 3)
    for cells in (walks.tokens, walks.candidates):
        assert (cells.dtype, cells.min() >= 0, cells.max() < rows * columns) == (np.int32, True, True)
    row, column = places(walks, columns)
    assert abs(np.diff(row)).max() <= 1
    assert abs(np.diff(column)).max() <= 1


def test_trips_are_reproducible_and_distinct() -> None:
    one, same = (draw_walks(SHAPE, 40, 50, np.random.default_rng(3)).tokens for _ in range(2))
    assert (one == same).all()
    assert len(np.unique(one, axis=0)) == SHAPE.trips
    assert (one != draw_walks(SHAPE, 40, 50, np.random.default_rng(4)).tokens).any()


def test_candidates_are_the_cells_around() -> None:
    shape = Shape(trips=1, steps=1, candidates=8)
    for seed in range(20):
        walks = draw_walks(shape, 40, 50, np.random.default_rng(seed))
        row, column = divmod(int(walks.tokens[0, 0]), 50)
        if 0 < row < 39 and 0 < column < 49:
            ring = {(row + r) * 50 + column + c for r in (-1, 0, 1) for c in (-1, 0, 1)} - {int(walks.tokens[0, 0])}
            assert set(walks.candidates[0, 0].tolist()) == ring


def test_percentiles_are_measured_values() -> None:
    assert percentiles([n / 1000 for n in range(1, 101)]) == {
        "mean": 50.5, "p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "max": 100.0,
    }  # fmt: skip
    assert percentiles([0.25]) == dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), 250.0)
    assert percentiles([]) is None


def test_what_was_due_in_the_warm_up_does_not_count() -> None:
    now = time.perf_counter()
    tally = Tally(begins=now)
    tally.answered(now - 0.1, 10, 5, 5)
    tally.failed(now - 0.1, "UNAVAILABLE", "")
    tally.answered(now, 10, 2_000, 3_000)
    tally.failed(now, "INTERNAL", "the first one")
    tally.failed(now, "INTERNAL", "the second one")
    summary = tally.summary()
    assert (summary["requests"], tally.positions) == (1, 10)
    assert summary["errors"] == [{"status": "INTERNAL", "count": 2, "first": "the first one"}]
    assert (summary["queue_ms"]["max"], summary["compute_ms"]["max"]) == (2.0, 3.0)


class FakeDoor:
    """Answers after `seconds(number of the request)`, or refuses if that is below 0."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds, self.asked, self.open, self.most_open = seconds, 0, 0, 0

    async def ask(self, message: bytes, timeout: float) -> Times:
        number, self.asked = self.asked, self.asked + 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if (seconds := self._seconds(number)) < 0:
                raise Refused("UNAVAILABLE", "not now")
            await asyncio.sleep(seconds)
        finally:
            self.open -= 1
        return 1, 2


def driven(door: FakeDoor, load: Load) -> Drive:
    async def whole() -> Drive:
        drive = Drive(door, [b"a", b"b"], 7, load)  # type: ignore[arg-type]
        await drive.run()
        return drive

    return asyncio.run(whole())


def test_a_closed_loop_has_so_many_requests_open() -> None:
    door = FakeDoor(lambda number: 0.01)
    drive = driven(door, Load(callers=4, duration=0.5, warm_up=0.1))
    assert door.most_open == 4
    summary = drive.tally.summary()
    assert 4 < summary["requests"] <= 4 * 51
    assert summary["positions_per_s"] == pytest.approx(7 * summary["requests_per_s"], rel=0.01)
    assert 9 < summary["latency_ms"]["p50"] < 100


def test_an_open_loop_arrives_whether_or_not_there_are_answers() -> None:
    door = FakeDoor(lambda number: 0.2)
    drive = driven(door, Load(rate=200.0, duration=1.0, warm_up=0.0))
    assert 140 < drive.tally.summary()["requests"] < 260
    assert door.most_open > 15


def test_a_stall_is_charged_for_all_who_would_have_come() -> None:
    """The generator itself is held up for half a second: those who were due meanwhile waited, though sent later."""

    def seconds(number: int) -> float:
        if number == 20:
            time.sleep(0.5)
        return 0.0

    drive = driven(FakeDoor(seconds), Load(rate=100.0, duration=1.0, warm_up=0.0))
    latencies = np.array(drive.tally.latencies)
    assert 25 < np.count_nonzero(latencies > 0.02) < 80  # about 50 arrivals fell into it
    assert latencies.max() > 0.45


def test_failures_are_counted_and_a_closed_loop_pauses() -> None:
    door = FakeDoor(lambda number: -1.0)
    drive = driven(door, Load(callers=2, duration=0.3, warm_up=0.0))
    assert drive.tally.summary()["requests"] == 0
    assert drive.tally.errors["UNAVAILABLE"] == door.asked <= 2 * 31


def test_more_than_can_be_open_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "MOST_AT_ONCE", 5)
    drive = driven(FakeDoor(lambda number: 0.2), Load(rate=300.0, duration=0.3, warm_up=0.0))
    assert drive.tally.errors[NOT_SENT] > 30


def test_the_progress_line() -> None:
    tally = Tally(begins=time.perf_counter())
    assert progress_line(-2.0, 10.0, tally.summary()) == "warming up: 2 s"
    tally.answered(time.perf_counter(), 7, 1, 2)
    tally.failed(time.perf_counter(), "INTERNAL", "")
    line = progress_line(3.0, 10.0, tally.summary())
    assert line.startswith("3 of 10 s: ")
    assert line.endswith(", 1 errors")
    assert "p99" in line
    report(tally.summary())


def bench(address: str | None, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "teacher_server", "bench", str(address), "--warm-up=0.2", "--trips=2", "--steps=5"]
    return subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answered(teacher: RunningTeacher) -> float:
    match = re.search(
        r'teacher_requests_total{model="teacher",outcome="ok"} (\S+)', httpx.get(f"{teacher.http}/metrics").text
    )
    assert match
    return float(match[1])


@pytest.mark.parametrize(
    ("protocol", "whole"), [("native", False), ("oip", False), ("rest", False), ("native", True), ("rest", True)]
)
def test_all_protocols_measure_a_real_server(teacher: RunningTeacher, protocol: str, whole: bool) -> None:
    address = teacher.http if protocol == "rest" else teacher.grpc
    flags = ["--whole"] if whole else []
    process = bench(address, "--protocol", protocol, "--duration=0.7", "--callers=3", "--json", *flags)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    summary = json.loads(out)
    assert summary["requests"] > 3
    assert summary["errors"] == []
    assert summary["latency_ms"]["p50"] >= summary["compute_ms"]["p50"] > 0
    assert summary["shape"] == {"trips": 2, "steps": 5, "window": 7, "candidates": 3, "whole": whole}


def test_the_table_and_the_end_by_ctrl_c(teacher: RunningTeacher) -> None:
    before = answered(teacher)
    with bench(teacher.grpc, "--rate=50", "--duration=60") as process:
        try:
            deadline = time.monotonic() + 60
            while answered(teacher) < before + 50:  # which is beyond the warm-up
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "50 requests/s arriving, 2 trips x 5 steps, window 7, 3 candidates" in out
    assert "requests/s" in out
    assert "waiting there" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["127.0.0.1:9"], "127.0.0.1:9 refuses (UNAVAILABLE)"),
        (["nowhere"], "bad address 'nowhere'"),
        (["127.0.0.1:9", "--protocol=rest"], "--protocol rest takes http://HOST:PORT"),
        (["127.0.0.1:9", "--protocol=soap"], "unknown protocol 'soap'"),
        (["127.0.0.1:9", "--trips=100000", "--steps=1000"], "--trips x --steps is 100000000"),
    ],
)
def test_what_cannot_work_is_one_line(flags: list[str], message: str) -> None:
    errors = finished(bench(*flags), 2)
    assert errors.startswith("teacher: error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line(teacher: RunningTeacher) -> None:
    errors = finished(bench(teacher.grpc, "--protocol=oip", "--model=none"), 2)
    assert "refuses (NOT_FOUND): there is no model 'none' here" in errors
