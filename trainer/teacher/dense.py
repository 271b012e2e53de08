"""Queries as the tensors of the Open Inference Protocol. Pure numpy.

B histories of at most L tokens, n scored positions and K candidates; what lies behind a length or a count is padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.teacher.protocol import Ints, Query, TripQuery
from trainer.teacher.split import part_of, trips_of

Tensors = dict[str, NDArray[np.int32]]


@dataclass(frozen=True)
class DenseQuery:
    """A query's tensors by name, and which slots of the answer it reads."""

    tensors: Tensors
    filled: NDArray[np.bool_]  # [B, n, K]


def dense_query(query: Query) -> DenseQuery:
    """A query that has at least one candidate."""
    history = _padded(query.tokens, query.lengths)
    counts = _padded(query.counts, query.scored)
    filled = np.arange(counts.max()) < counts[..., None]
    candidates = np.zeros(filled.shape, np.int32)
    candidates[filled] = query.candidates
    tensors = {
        "HISTORY": history,
        "HISTORY_LENGTH": _column(query.lengths),
        "SCORED": _column(query.scored),
        "WINDOW": _column(np.full_like(query.lengths, query.window)),
        "CANDIDATES": candidates,
        "CANDIDATE_COUNT": counts,
    }
    return DenseQuery(tensors, filled)


def dense_parts(query: Query, max_bytes: int) -> Iterator[Query]:
    """The query in parts whose tensors have at most so many bytes, save where a single history has more."""
    histories = len(query.lengths)
    if histories == 1 or _dense_bytes(query) <= max_bytes:
        yield query
        return
    for start, stop in ((0, histories // 2), (histories // 2, histories)):
        yield from dense_parts(part_of(query, start, stop), max_bytes)


def dense_trips(query: TripQuery) -> Tensors:
    """The tensors of a query about whole trips."""
    return {"HISTORY": _padded(query.tokens, query.lengths), "HISTORY_LENGTH": _column(query.lengths)}


def dense_trip_parts(query: TripQuery, max_bytes: int) -> Iterator[TripQuery]:
    """The query in parts whose tensors have at most so many bytes, save where a single trip has more."""
    trips = len(query.lengths)
    if trips == 1 or 4 * trips * (int(query.lengths.max()) + 1) <= max_bytes:
        yield query
        return
    for start, stop in ((0, trips // 2), (trips // 2, trips)):
        yield from dense_trip_parts(trips_of(query, start, stop), max_bytes)


def count_truncated(query: Query, block_size: int) -> int:
    """Scored positions whose history does not fit behind SOT into the teacher's block, though they want all of it."""
    room = block_size - 1
    if 0 < query.window <= room:
        return 0
    return int(np.clip(query.lengths - room, 0, query.scored).sum())


def _dense_bytes(query: Query) -> int:
    slots, width = int(query.scored.max()), int(query.counts.max(initial=0))
    return 4 * len(query.lengths) * (int(query.lengths.max()) + 3 + slots + slots * width)


def _padded(values: NDArray[np.int32] | Ints, lengths: Ints) -> NDArray[np.int32]:
    """Ragged values [sum of lengths] in rows [B, longest], zeros behind."""
    rows = np.zeros((len(lengths), int(lengths.max())), np.int32)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = values
    return rows


def _column(values: Ints) -> NDArray[np.int32]:
    return values.astype(np.int32)[:, None]
