"""What all ranks of a run do together or not at all."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

import torch

from trainer.errors import RankLost, Stopped, TrainerError
from trainer.ranks import Ranks

T = TypeVar("T")


class Turn(IntEnum):
    """What a rank can say; the greatest of all ranks holds for all."""

    GO = 0
    STOP = 1
    FAIL = 2


def together(ranks: Ranks, device: torch.device, should_stop: Callable[[], bool], work: Callable[[], T]) -> T | None:
    """What this rank's work gives; None when any rank is to stop. Raises what keeps any rank from going on.

    The work must not talk to other ranks.
    """
    turn, done, failure = Turn.STOP if should_stop() else Turn.GO, None, None
    try:
        done = work() if turn is Turn.GO else None
    except Stopped:
        turn = Turn.STOP
    except TrainerError as error:
        turn, failure = Turn.FAIL, error
    agreed = ranks.most(turn, device)
    if failure is not None:
        raise failure
    if agreed == Turn.FAIL:
        raise RankLost("another process of this run cannot go on; its own message says why")
    return done if agreed == Turn.GO else None
