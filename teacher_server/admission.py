"""Which requests are computed: not too large, arrays that fit together, tokens that are cells. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teacher_server.errors import InvalidRequest, TooLarge
from teacher_server.limits import Limits
from teacher_server.rows import Ints, ScoreWork, Tokens, count_row_tokens
from teacher_server.trips import TripWork


def check_limits(work: ScoreWork, limits: Limits) -> None:
    """Raise TooLarge for a request that holds too much. May be asked before anything else is known of the work."""
    _check_sizes(
        ("histories", len(work.lengths), limits.max_sequences),
        ("history tokens", len(work.tokens), limits.max_tokens),
        ("scored positions", len(work.candidate_counts), limits.max_positions),
        ("candidates", len(work.candidates), limits.max_candidates),
    )


def check_trip_limits(trips: TripWork, limits: Limits) -> None:
    """The same for whole trips, of which every token and EOT is scored."""
    _check_sizes(
        ("trips", len(trips.lengths), limits.max_sequences),
        ("tokens", len(trips.tokens), limits.max_tokens),
        ("scored positions (tokens and EOT)", trips.positions, limits.max_positions),
    )


def _check_sizes(*sizes: tuple[str, int, int]) -> None:
    for name, size, limit in sizes:
        if size > limit:
            raise TooLarge(f"the request has {size} {name}, and {limit} are allowed: send it in smaller parts")


def check_row_tokens(work: ScoreWork, block_size: int, limits: Limits) -> None:
    """Raise TooLarge for a request that is small to send but too much to compute. The work must be checked."""
    needed = count_row_tokens(work, block_size)
    if needed > limits.max_row_tokens:
        raise TooLarge(
            f"the request needs {needed} row tokens (positions x window), and {limits.max_row_tokens} are allowed: "
            "send fewer positions a request or use a smaller window"
        )


def check_work(work: ScoreWork, cells: int) -> None:
    """Raise InvalidRequest, naming the place, unless the arrays fit together and all tokens are cells."""
    _check_shape(work)
    _check_cells(work.tokens, work.lengths, cells, "tokens", "history")
    _check_cells(work.candidates, work.candidate_counts, cells, "candidates", "scored position")


def check_trips(trips: TripWork, cells: int) -> None:
    """Raise InvalidRequest, naming the place, unless the arrays fit together and all tokens are cells."""
    if not len(trips.lengths):
        raise InvalidRequest("lengths is empty: the request has no trip")
    _check_each(trips.lengths < 1, trips.lengths, "lengths", "a trip has at least one token")
    _check_sum(trips.lengths, len(trips.tokens), "lengths", "tokens")
    _check_cells(trips.tokens, trips.lengths, cells, "tokens", "trip")


def _check_shape(work: ScoreWork) -> None:
    """Raise InvalidRequest unless the ragged arrays fit together."""
    histories = len(work.lengths)
    if not histories:
        raise InvalidRequest("lengths is empty: the request has no history")
    if len(work.windows) != histories:
        raise InvalidRequest(f"windows has {len(work.windows)} entries, but lengths has {histories}")
    _check_each(work.windows < 0, work.windows, "windows", "it must be 0 (all tokens) or a number of last tokens")
    if len(work.scored) != histories:
        raise InvalidRequest(f"scored has {len(work.scored)} entries, but lengths has {histories}")
    _check_each(work.lengths < 1, work.lengths, "lengths", "a history has at least one token")
    _check_sum(work.lengths, len(work.tokens), "lengths", "tokens")
    outside = (work.scored < 0) | (work.scored > work.lengths)
    _check_each(outside, work.scored, "scored", "it must be in 0..length of that history")
    if not work.scored.any():
        raise InvalidRequest("nothing to score: scored is 0 for every history")
    _check_sum(work.scored, len(work.candidate_counts), "scored", "candidate_counts")
    _check_each(work.candidate_counts < 0, work.candidate_counts, "candidate_counts", "it must be 0 or more")
    _check_sum(work.candidate_counts, len(work.candidates), "candidate_counts", "candidates")


def _check_each(wrong: NDArray[np.bool_], values: Ints, name: str, rule: str) -> None:
    if wrong.any():
        place = int(wrong.argmax())
        raise InvalidRequest(f"{name}[{place}] is {values[place]}: {rule}")


def _check_sum(parts: Ints, size: int, name: str, of: str) -> None:
    total = int(parts.sum())
    if total != size:
        raise InvalidRequest(f"{name} adds up to {total}, but {of} has {size} entries")


def _check_cells(tokens: Tokens, parts: Ints, cells: int, name: str, part: str) -> None:
    """Raise InvalidRequest unless all tokens are cells; PAD, EOT and SOT lie behind them and are none."""
    wrong = (tokens < 0) | (tokens >= cells)
    if wrong.any():
        place = int(wrong.argmax())
        owner = int(np.searchsorted(np.cumsum(parts), place, side="right"))
        raise InvalidRequest(
            f"{name}[{place}] ({part} {owner}) is {tokens[place]}, which is no cell: cells are 0..{cells - 1}"
        )
