"""What a search finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """Roads from the origin on, the time at which each is entered, and the sum of log-probabilities."""

    roads: tuple[int, ...]
    times: tuple[int, ...]  # seconds
    log_prob: float = 0.0


@dataclass(frozen=True)
class Route:
    """What a search found; a route that is not reached leads to the expanded road nearest to the destination."""

    path: Path
    reached: bool
    expansions: int


@dataclass
class Cost:
    """What a trip took: of every round's time the share that its nodes were of all nodes."""

    seconds: float = 0.0
    forward_seconds: float = 0.0  # in the student
    forwards: int = 0  # rounds that it was part of


@dataclass(frozen=True)
class Found:
    """A finished trip of a demand."""

    index: int
    route: Route
    cost: Cost
