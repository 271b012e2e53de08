"""The clock: wall time on the host, and device time read only once the device has passed its marks."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

import pytest
import torch

from trainer.clock import Clock


@dataclass
class Device:
    """A queue of marks; the device has passed as many as it is told to, each at its own time."""

    times_ms: list[float]
    marks: list[Mark] = field(default_factory=list)
    passed: int = 0

    def new_event(self) -> Mark:
        return Mark(self)


@dataclass
class Mark:
    device: Device
    at: int = -1

    def record(self) -> None:
        self.at = len(self.device.marks)
        self.device.marks.append(self)

    def query(self) -> bool:
        return self.at < self.device.passed

    def elapsed_time(self, later: Mark) -> float:
        assert self.query(), "reading this mark would wait for the device"
        assert later.query(), "reading this mark would wait for the device"
        return self.device.times_ms[later.at] - self.device.times_ms[self.at]


def test_wall_time_adds_up_by_part_also_when_a_part_fails() -> None:
    clock = Clock()
    for _ in range(2):
        with clock("data_wait"):
            time.sleep(0.02)
    with contextlib.suppress(ValueError), clock("backward_pass"):
        time.sleep(0.02)
        raise ValueError
    assert 0.04 <= clock.seconds["data_wait"] < 0.2
    assert 0.02 <= clock.seconds["backward_pass"] < 0.2


def test_what_a_device_does_is_read_after_it_is_done() -> None:
    device = Device(times_ms=[0, 30, 30, 100])
    clock = Clock(device.new_event)
    with clock("hoser_forward"):
        pass
    with clock("backward_pass"):
        pass
    assert clock.seconds == {}, "nothing is known before the device got there, and nobody waits for it"
    device.passed = 3
    assert clock.seconds == {"hoser_forward": pytest.approx(0.03)}
    device.passed = 4
    assert clock.seconds == {"hoser_forward": pytest.approx(0.03), "backward_pass": pytest.approx(0.07)}
    assert clock.seconds["hoser_forward"] == pytest.approx(0.03), "each mark counts once"


def test_what_the_host_does_is_wall_time_beside_a_device() -> None:
    device = Device(times_ms=[])
    clock = Clock(device.new_event)
    with clock("distill_kl_(teacher)"):
        time.sleep(0.02)
    assert clock.seconds["distill_kl_(teacher)"] >= 0.02
    assert device.marks == []


def test_a_cpu_has_no_marks() -> None:
    clock = Clock.of(torch.device("cpu"))
    with clock("hoser_forward"):
        time.sleep(0.01)
    assert clock.seconds["hoser_forward"] >= 0.01
