"""Asks a teacher how probable whole trips are, several requests at a time. A trip is asked as it is, however long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trainer.data.trips import Trips
from trainer.progress_line import progress_bar
from trainer.teacher.pool import IN_FLIGHT
from trainer.teacher.protocol import Likelihoods, Teacher, TripQuery
from trainer.teacher.questions import cut_requests, sorted_trips

# Half a batch of a server on CPUs, where a token of a large teacher takes milliseconds: those that wait there are
# answered within a deadline.
REQUEST_TOKENS = 8192


def judge_trips(
    teacher: Teacher, road_to_token: NDArray[np.int32], trips: Trips, title: str, in_flight: int = IN_FLIGHT
) -> Likelihoods:
    """The likelihoods of n >= 1 trips, in their order, from the token of every road, [R].

    Requests depend on the trips only; trips that begin alike are neighbours in them. Raises as `Teacher.likelihood`.
    """
    order = sorted_trips(trips, road_to_token)
    bounds, sizes = cut_requests(np.minimum(trips.lengths[order] + 1, teacher.description.block_size), REQUEST_TOKENS)
    requests = np.split(order, bounds[1:-1])
    sums, counts, truncated = np.zeros(len(trips)), np.zeros(len(trips), np.int64), 0

    def ask(chosen: NDArray[np.int64]) -> Likelihoods:
        part = trips.select(chosen)
        return teacher.likelihood(TripQuery(road_to_token[part.roads], part.lengths))

    executor = ThreadPoolExecutor(in_flight, thread_name_prefix="judging")
    try:
        with progress_bar(title, int(sizes.sum()), 0, unit=" tokens", unit_scale=True) as bar:
            for chosen, size, found in zip(requests, sizes.tolist(), executor.map(ask, requests), strict=True):
                sums[chosen], counts[chosen] = found.log_likelihoods, found.token_counts
                truncated += found.truncated
                bar.update(size)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    return Likelihoods(sums, counts, truncated)
