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


def together(ranks: Ranks, device: torch.device, should_stop: Callable[[], bool], work: Callable[[], T]) -> T:
    """What this rank's work gives. Raises Stopped when any rank is to stop, and what keeps any rank from going on.

    The work must not talk to other ranks.
    """
    turn, failure = Turn.GO, None
    try:
        if should_stop():
            raise Stopped
        done = work()
    except Stopped:
        turn = Turn.STOP
    except TrainerError as error:
        turn, failure = Turn.FAIL, error
    agreed = ranks.most(turn, device)
    if failure is not None:
        raise failure
    if agreed == Turn.FAIL:
        raise RankLost("another process of this run cannot go on; its own message says why")
    if agreed == Turn.STOP:
        raise Stopped("a stop was asked for")
    return done
