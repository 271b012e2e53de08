"""What bulk labelling asks about a split, in requests that depend on the data only. Pure numpy.

n trips, P steps, Q questions, R roads. A request holds about REQUEST_TOKENS row tokens, and questions that begin alike
are neighbours, so that the server computes once what their rows share. A step with one candidate is never asked about:
its answer is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.roadmap import RoadMap
from trainer.data.trips import Ints, Trips, ranges
from trainer.teacher.layout import Steps, offsets_of
from trainer.teacher.protocol import Query

REQUEST_TOKENS = 32_000  # two batches of a server on CPUs, a part of one on a GPU
SORTED_TOKENS = 16  # by which trips are sorted; few share more
KEY_BOUND = 2**62


class Questions(Protocol):
    """A split's questions, cut into requests 0, 1, ..."""

    row_tokens: Ints  # [requests] to compute, if nothing were shared

    def query(self, request: int) -> Query: ...

    def requests_about(self, trips: NDArray[np.bool_]) -> Ints:
        """The requests whose answers some trips [n] need, ascending."""
        ...


@dataclass(frozen=True)
class Cells:
    """The road map as a teacher sees it."""

    tokens: NDArray[np.int32]  # [R]
    road_map: RoadMap

    def candidates(self, roads: NDArray[np.int32]) -> tuple[NDArray[np.int32], Ints]:
        """The cells of the roads' successors, one after another, and their counts: 0 where there is no choice."""
        starts = self.road_map.successor_offsets[roads]
        counts = self.road_map.successor_offsets[roads + 1] - starts
        counts = np.where(counts > 1, counts, 0)
        return self.tokens[self.road_map.successors[ranges(starts, counts)]], counts


class TripQuestions:
    """Without a window, a question is a trip, and all its steps are scored in one pass."""

    def __init__(self, steps: Steps, cells: Cells, block_size: int) -> None:
        self._steps, self._cells = steps, cells
        lengths = np.diff(steps.offsets)
        order = sorted_trips(steps, cells.tokens)
        rows = np.where(lengths < block_size, lengths + 1, lengths * block_size)[order]
        bounds, self.row_tokens = cut_requests(rows, REQUEST_TOKENS)
        self.trips = np.split(order, bounds[1:-1])  # of each request
        self._request_of = np.empty(len(order), np.int64)
        self._request_of[order] = np.repeat(np.arange(len(self.trips)), np.diff(bounds))

    def query(self, request: int) -> Query:
        trips = self.trips[request]
        lengths = np.diff(self._steps.offsets)[trips]
        roads = self._steps.roads[ranges(self._steps.offsets[trips], lengths)]
        candidates, counts = self._cells.candidates(roads)
        return Query(self._cells.tokens[roads], lengths, lengths, 0, candidates, counts, bulk=True)

    def requests_about(self, trips: NDArray[np.bool_]) -> Ints:
        return np.unique(self._request_of[trips])

    def values(self, request: int, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """A request's answers as values of its trips."""
        trips = self.trips[request]
        counts = np.diff(self._steps.offsets)[trips]
        degrees = self._steps.degrees[ranges(self._steps.offsets[trips], counts)]
        return with_certain(answers, degrees)


class WindowQuestions:
    """With a window, a question is a distinct window and the road at its end, whose successors are the candidates.

    All steps with that window and road have the same answer.
    """

    def __init__(self, steps: Steps, cells: Cells, window: int) -> None:
        self._steps, self._cells, self._window = steps, cells, window
        asked = np.flatnonzero(steps.degrees > 1)
        first = _window_starts(steps, window)[asked]
        ends, number = _distinct_windows(steps.roads, first, asked, cells.tokens)
        self._first, self._ends = first[ends], asked[ends]
        self.question_of = np.full(len(steps.roads), -1, np.int32)  # [P] each step's question
        self.question_of[asked] = number
        self._bounds, self.row_tokens = cut_requests(self._ends - self._first + 2, REQUEST_TOKENS)
        self.answer_offsets = offsets_of(steps.degrees[self._ends])  # [Q + 1] where each question's answers begin
        self.request_offsets = self.answer_offsets[self._bounds]  # [requests + 1] the same of each request

    def query(self, request: int) -> Query:
        here = slice(self._bounds[request], self._bounds[request + 1])
        lengths = self._ends[here] - self._first[here] + 1
        tokens = self._cells.tokens[self._steps.roads[ranges(self._first[here], lengths)]]
        candidates, counts = self._cells.candidates(self._steps.roads[self._ends[here]])
        return Query(tokens, lengths, np.ones_like(lengths), self._window, candidates, counts, bulk=True)

    def requests_about(self, trips: NDArray[np.bool_]) -> Ints:
        questions = self.question_of[np.repeat(trips, np.diff(self._steps.offsets))]
        wanted = np.zeros(len(self._ends), bool)
        wanted[questions[questions >= 0]] = True
        return np.unique(np.repeat(np.arange(len(self.row_tokens)), np.diff(self._bounds))[wanted])

    def values(self, first: int, stop: int, answers: NDArray[np.floating]) -> NDArray[np.floating]:
        """All questions' answers as values of the trips first..stop-1."""
        here = slice(self._steps.offsets[first], self._steps.offsets[stop])
        degrees, questions = self._steps.degrees[here], self.question_of[here]
        asked = questions >= 0
        places = ranges(self.answer_offsets[questions[asked]], degrees[asked])
        return with_certain(answers[places], degrees)


def with_certain(answers: NDArray[np.floating], degrees: NDArray[np.int32]) -> NDArray[np.floating]:
    """The candidates' log-probabilities of some steps, of which only those with a choice were asked about."""
    values = np.zeros(int(degrees.sum()), answers.dtype)
    values[np.repeat(degrees > 1, degrees)] = answers
    return values


def cut_requests(rows: Ints, request_tokens: int) -> tuple[Ints, Ints]:
    """(bounds [requests + 1], row tokens [requests]) of requests that hold consecutive questions of so many tokens."""
    before = offsets_of(rows)
    bounds = np.append(np.flatnonzero(np.diff(before[:-1] // request_tokens, prepend=-1)), len(rows))
    return bounds, np.diff(before[bounds])


def sorted_trips(trips: Steps | Trips, tokens: NDArray[np.int32]) -> Ints:
    """All trips in the order of their first tokens, so that those that begin alike are neighbours."""
    starts, ends = trips.offsets[:-1], trips.offsets[1:]
    digits = (_digit(trips.roads, starts + column, ends - 1, tokens) for column in range(SORTED_TOKENS))
    return np.argsort(_order_keys(digits, int(tokens.max()) + 2, len(starts)), kind="stable")


def _window_starts(steps: Steps, window: int) -> Ints:
    """[P] the step where each step's window begins."""
    begins = np.repeat(steps.offsets[:-1], np.diff(steps.offsets))
    return np.maximum(begins, np.arange(len(steps.roads)) - window + 1)


def _distinct_windows(
    roads: NDArray[np.int32], first: Ints, last: Ints, tokens: NDArray[np.int32]
) -> tuple[Ints, Ints]:
    """([Q] one window of each kind, [windows] the kind of each window), kinds in the order of their tokens."""
    longest = int((last - first).max(initial=0)) + 1
    digits = (_digit(roads, first + column, last, tokens) for column in range(longest))
    base = max(int(tokens.max()) + 2, len(tokens))
    keys = _order_keys(chain(digits, [roads[last].astype(np.int64)]), base, len(first))
    _, ends, number = np.unique(keys, return_index=True, return_inverse=True)
    return ends, number


def _digit(roads: NDArray[np.int32], places: Ints, last: Ints, tokens: NDArray[np.int32]) -> Ints:
    """1 + the token at each place, or 0 behind the last one."""
    found = tokens[roads[np.minimum(places, last)]].astype(np.int64) + 1
    return np.where(places <= last, found, 0)


def _order_keys(digits: Iterable[Ints], base: int, count: int) -> Ints:
    """One number for each sequence of digits below `base`, in the order of the sequences; equal ones are equal."""
    keys, bound = np.zeros(count, np.int64), 1
    for digit in digits:
        if bound * base > KEY_BOUND:
            values, keys = np.unique(keys, return_inverse=True)
            bound = len(values)
        keys, bound = keys * base + digit, bound * base
    return keys
