"""How large a request may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one request may hold."""

    max_sequences: int = 65_536
    max_tokens: int = 1_048_576  # of all histories
    max_positions: int = 1_048_576  # to score
    max_candidates: int = 4_194_304  # of all positions
    max_row_tokens: int = 16_777_216  # to compute: every position beyond the window has a row of window + 1 tokens
    max_message_bytes: int = 33_554_432

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
