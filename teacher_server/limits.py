"""How large a request may be, and how long and how many connections."""

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


@dataclass(frozen=True)
class Connections:
    """What one connection may do. Times are seconds."""

    max_age: float | None = None  # after which gRPC clients must connect again; None: never
    max_streams: int = 256  # calls at a time on one gRPC connection; more of them wait in the client
    keepalive: float = 30.0  # silence after which the server asks whether a gRPC client is still there
    http_timeout: float = 60.0  # for a whole HTTP request to arrive, and for its answer to be read
    max_http_requests: int = 64  # that are answered at a time
