"""Means over an interval's steps, and the shares of a whole run."""

from __future__ import annotations

import pytest
from rich.console import Console

from trainer.clock import Clock
from trainer.profile import PARTS, STEP, TEACHER, Interval, profile_of, profile_table


def test_an_interval_gives_the_mean_of_its_steps_and_starts_anew() -> None:
    clock = Clock()
    clock.seconds.update({STEP: 100.0, TEACHER: 50.0})  # of an earlier session
    interval = Interval(clock, trips=640)
    for total, teacher in ((1.0, 0.5), (3.0, 0.0)):
        clock.seconds[STEP] += total
        clock.seconds[TEACHER] += teacher
        interval.step()
    found = interval.figures(trips=640 + 128)
    assert found["perf/total_step_time_ms"] == pytest.approx(2000)
    assert found["perf/distill_kl_(teacher)_ms"] == pytest.approx(250)
    assert found["perf/iter_per_sec"] == pytest.approx(0.5)
    assert found["perf/samples_per_s"] == pytest.approx(32)
    assert found["perf/teacher_wait_share"] == pytest.approx(0.125)
    clock.seconds[STEP] += 0.1
    interval.step()
    assert interval.figures(trips=640 + 192)["perf/total_step_time_ms"] == pytest.approx(100)


def test_the_research_names_are_there() -> None:
    names = ("data_wait", "data_transfer", "hoser_forward", "distill_kl_(teacher)", "backward_pass", "optimizer_step")
    wanted = {f"perf/{name}_ms" for name in (*names, "total_step_time")} | {"perf/iter_per_sec"}
    assert wanted <= Interval(Clock(), 0).figures(0).keys()


def test_a_run_as_shares_of_its_steps() -> None:
    seconds = {STEP: 10.0, TEACHER: 1.0, "hoser_forward": 4.0, "backward_pass": 3.0, "validation": 90.0}
    found = profile_of(seconds, trips=500)
    assert found["teacher_wait_share"] == 0.1
    assert found["samples_per_s"] == 50
    assert found["step_seconds"] == 10
    assert set(found["parts"]) == {*PARTS, "other"}
    assert found["parts"]["hoser_forward"] == {"seconds": 4.0, "share": 0.4}
    assert found["parts"]["other"] == {"seconds": 2.0, "share": 0.2}
    assert sum(part["share"] for part in found["parts"].values()) == pytest.approx(1)


def test_the_table_says_it_to_people() -> None:
    shown = Console(width=80)
    with shown.capture() as said:
        shown.print(profile_table(profile_of({STEP: 10.0, TEACHER: 1.0}, trips=500)))
    assert "10.0 s, 50.0 samples/s" in said.get()
    (row,) = (line for line in said.get().splitlines() if "teacher KL wait" in line)
    assert "1.00" in row
    assert "10.0 %" in row


def test_a_run_without_a_step_divides_by_nothing() -> None:
    assert profile_of({}, trips=0)["samples_per_s"] == 0
    assert Interval(Clock(), 0).figures(0)["perf/total_step_time_ms"] == 0
