"""Questions in the dense form, about candidates or about whole trips, and their right answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from bench.reliability.doors import Numbers
from bench.reliability.oracle import Oracle
from teacher_server.dense import asks_of_trips, read_request, read_trips, trip_outputs
from teacher_server.rows import ScoreWork
from teacher_server.trips import TripWork
from tests.teacher_server.dense_clients import OF_TRIPS
from tests.teacher_server.scoring import dense_arrays_of, trip_arrays_of

TRIPS_SHARE = 0.3  # of the questions


def dense_question(work: ScoreWork, chance: random.Random) -> tuple[dict[str, Numbers], tuple[str, ...]]:
    """Arrays and the outputs that are wanted."""
    junk = chance.choice((0, -1))
    if chance.random() < TRIPS_SHARE:
        outputs = chance.choice((OF_TRIPS, OF_TRIPS[::-1], OF_TRIPS[:1], OF_TRIPS[1:]))
        return dict(trip_arrays_of(TripWork(work.tokens, work.lengths), junk)), outputs
    return dict(dense_arrays_of(work, junk)), chance.choice(((), ("LOG_PROBS",)))


def dense_answer(arrays: Mapping[str, Numbers], outputs: Sequence[str], datatype: str, oracle: Oracle) -> Numbers:
    """What `numbers_of` makes of a right answer. Raises any error where there is none."""
    if not asks_of_trips(outputs):
        dense = read_request(arrays)
        return numbers_of({"LOG_PROBS": dense.log_probs(oracle.log_probs(dense.work), datatype)})
    found = trip_outputs(*oracle.likelihoods(read_trips(arrays)))
    return numbers_of({name: found[name] for name in outputs})


def numbers_of(outputs: Mapping[str, Numbers]) -> Numbers:
    """All outputs in one array, by name."""
    return np.concatenate([outputs[name] for name in sorted(outputs)])
