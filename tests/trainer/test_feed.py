"""Examples come in order while the teacher is asked ahead; failures and stops arrive at their own step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from trainer.clock import Clock
from trainer.data.city import City
from trainer.data.features import Features, Network
from trainer.data.trips import Ints
from trainer.errors import NoAnswer, Stopped, TeacherUnavailable
from trainer.examples import Example, ExampleMaker, Part
from trainer.feed import Feed
from trainer.teacher.targets import Target, UniformTargets

STEPS = [[np.array([2 * i]), np.array([2 * i + 1])] for i in range(8)]


@dataclass
class Slow:
    """Uniform answers that take long, the earlier question the longer; fails for the trips that it is told to."""

    fail: dict[int, Exception] = field(default_factory=dict)
    seconds: float = 0.02
    asked: list[int] = field(default_factory=list)
    most: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, trips: Ints, features: Features) -> Target:
        with self.lock:
            self.asked += trips.tolist()
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        time.sleep(self.seconds * (1 + (len(STEPS) - trips[0] // 2) % 3))
        with self.lock:
            self.under_way -= 1
        if int(trips[0]) in self.fail:
            raise self.fail[int(trips[0])]
        return UniformTargets().of(trips, features)


@dataclass(frozen=True)
class Fed:
    """A feed, and whom its parts ask."""

    feed: Feed
    city: City
    slow: Slow

    def examples(self) -> Generator[list[Example], None, None]:
        trips = self.city.trips["train"]
        return self.feed.examples([Part(trips, chosen, self.slow) for chosen in parts] for parts in STEPS)


def feed(city: City, slow: Slow, ahead: int, should_stop: Callable[[], bool] = lambda: False) -> Fed:
    maker = ExampleMaker(Network.of(city.road_map), torch.device("cpu"), 1024, "original", Clock())
    return Fed(Feed(maker, ahead=ahead, should_stop=should_stop), city, slow)


@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_the_order_is_that_of_the_steps(city: City, ahead: int) -> None:
    slow = Slow()
    fed = feed(city, slow, ahead)
    for parts, examples in zip(STEPS, fed.examples(), strict=True):
        for part, made in zip(parts, examples, strict=True):
            plain = fed.feed.maker.make(city.trips["train"], part, targets=UniformTargets())
            assert plain.target is not None
            assert made.target is not None
            assert torch.equal(made.features.roads, plain.features.roads)
            assert torch.equal(made.target.log_probs, plain.target.log_probs)
    assert sorted(slow.asked) == list(range(16)), "every trip is asked about once"
    assert slow.most <= 2 * (ahead + 1)
    assert slow.most > 2 * min(ahead, 3), "questions were asked one after another"


def test_nothing_is_asked_further_ahead_than_allowed(city: City) -> None:
    slow = Slow(seconds=0)
    examples = feed(city, slow, ahead=2).examples()
    next(examples)
    time.sleep(0.2)
    assert sorted(slow.asked) == [0, 1, 2, 3, 4, 5]
    examples.close()


def test_a_failure_arrives_at_its_step(city: City) -> None:
    examples = feed(city, Slow({6: TeacherUnavailable("gone")}), ahead=3).examples()
    for _ in range(3):
        next(examples)
    with pytest.raises(TeacherUnavailable, match="gone"):
        next(examples)


def test_an_answer_that_may_be_missing_is_counted(city: City) -> None:
    made = list(feed(city, Slow({6: NoAnswer("gone")}), ahead=3).examples())
    (missing,) = [example for step in made for example in step if example.target is None]
    assert missing.missed == int(city.trips["train"].lengths[6]) - 1
    assert sum(example.missed for step in made for example in step) == missing.missed


def test_a_stop_ends_a_wait(city: City) -> None:
    begun = time.monotonic()
    examples = feed(city, Slow(seconds=3), ahead=1, should_stop=lambda: time.monotonic() - begun > 0.3).examples()
    with pytest.raises(Stopped):
        next(examples)
    assert time.monotonic() - begun < 2


def test_waiting_is_what_the_steps_in_between_do_not_hide(city: City) -> None:
    slow = Slow(seconds=0.03)
    for ahead, hidden in ((0, False), (3, True)):
        fed = feed(city, slow, ahead)
        for _ in fed.examples():
            time.sleep(0.1)
        waited = fed.feed.maker.clock.seconds["distill_kl_(teacher)"]
        assert (waited < 0.25) == hidden, f"{ahead}: {waited:.2f} s"
