"""Cuts a query into parts that a teacher's limits allow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.errors import BadInput
from trainer.teacher.protocol import Description, Ints, Query, TripQuery

# At most, in a request: two uint32 a sequence, an int32 a token, a uint16 a position, an int32 a candidate.
BYTES = np.array([8, 4, 2, 4])
ENVELOPE_BYTES = 1024


def split_query(query: Query, teacher: Description) -> Iterator[Query]:
    """Parts of whole histories, in order. Raises BadInput when a single history exceeds a limit."""
    limits = teacher.limits
    # Cumulative use of each limit before every history; a part may grow while all its uses fit.
    positions = np.concatenate([[0], np.cumsum(query.scored)])
    tokens = np.concatenate([[0], np.cumsum(query.lengths)])
    candidates = np.concatenate([[0], np.cumsum(query.counts)])[positions]
    sequences = np.arange(len(query.lengths) + 1)
    counts = np.stack([sequences, tokens, positions, candidates])
    rows = np.concatenate([[0], np.cumsum(row_tokens(query, teacher.block_size))])
    uses = np.vstack([counts, BYTES @ counts, rows])
    room = limits.message_bytes - ENVELOPE_BYTES
    caps = [limits.sequences, limits.tokens, limits.positions, limits.candidates, room, limits.row_tokens]
    for start, stop in _stretches(uses, caps, query.lengths, teacher):
        yield part_of(query, start, stop)


def split_trips(query: TripQuery, teacher: Description) -> Iterator[TripQuery]:
    """Parts of whole trips, in order. Raises BadInput when a single trip exceeds a limit."""
    limits = teacher.limits
    tokens = np.concatenate([[0], np.cumsum(query.lengths)])
    sequences = np.arange(len(query.lengths) + 1)
    rows = np.concatenate([[0], np.cumsum(np.minimum(query.lengths + 1, teacher.block_size))])
    uses = np.stack([sequences, tokens, tokens + sequences, 4 * (tokens + sequences), rows])
    room = limits.message_bytes - ENVELOPE_BYTES
    caps = [limits.sequences, limits.tokens, limits.positions, room, limits.row_tokens]
    for start, stop in _stretches(uses, caps, query.lengths, teacher):
        yield trips_of(query, start, stop)


def trips_of(query: TripQuery, start: int, stop: int) -> TripQuery:
    """The trips start..stop-1 of a query."""
    return TripQuery(query.tokens[_reach(query.lengths, start, stop)], query.lengths[start:stop])


def _stretches(uses: Ints, caps: list[int], lengths: Ints, teacher: Description) -> Iterator[tuple[int, int]]:
    """(start, stop) of as many histories as all caps allow, of whose uses [caps, B + 1] is the cumulative sum."""
    start, most = 0, np.array(caps)[:, None]
    while start < len(lengths):
        fits = np.all((uses[:, start + 1 :] - uses[:, start : start + 1]) <= most, axis=0)
        count = fits.size if fits.all() else int(fits.argmin())
        if count == 0:
            raise BadInput(f"a trip of {lengths[start]} steps alone exceeds the teacher's limits ({teacher.limits})")
        yield start, start + count
        start += count


def part_of(query: Query, start: int, stop: int) -> Query:
    """The histories start..stop-1 of a query."""
    tokens, positions = (_reach(parts, start, stop) for parts in (query.lengths, query.scored))
    candidates = _reach(query.counts, positions.start, positions.stop)
    return Query(
        query.tokens[tokens],
        query.lengths[start:stop],
        query.scored[start:stop],
        query.window,
        query.candidates[candidates],
        query.counts[positions],
        query.bulk,
    )


def _reach(parts: Ints, start: int, stop: int) -> slice:
    """Where parts start..stop-1 lie among their values, one after another."""
    return slice(int(parts[:start].sum()), int(parts[:stop].sum()))


def row_tokens(query: Query, block_size: int) -> Ints:
    """At most so many tokens are computed for each history, [B]: one pass, or a row for every scored position."""
    whole = query.lengths + 1
    if query.window == 0:
        return np.where(whole <= block_size, whole, query.scored * block_size)
    return query.scored * min(query.window + 1, block_size)
