"""Trips as an LM-TAD reads them: SOT, the cells, EOT; padded on the right. Pure.

N trips of a batch, L the longest of them with SOT. A trip that does not fit the block size S (SOT and S - 1 cells)
keeps its last S - 1 cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teacher_server.vocabulary import SpecialTokens

IGNORED = -100  # target of a padded slot, cross_entropy's own default
POOL = 50  # batches that are sorted by length together


def pad_batch(trips: Sequence[NDArray[np.int32]], special: SpecialTokens, block_size: int) -> tuple[Tensor, Tensor]:
    """(inputs, targets), int64 [N, L] each: SOT and cells; cells and EOT. Padding is PAD, and IGNORED as target."""
    kept = [trip[-(block_size - 1) :] if block_size > 1 else trip[:0] for trip in trips]
    width = 1 + max(len(trip) for trip in kept)
    inputs = np.full((len(kept), width), special.pad, np.int64)
    targets = np.full((len(kept), width), IGNORED, np.int64)
    inputs[:, 0] = special.sot
    for row, trip in enumerate(kept):
        inputs[row, 1 : len(trip) + 1] = trip
        targets[row, : len(trip)] = trip
        targets[row, len(trip)] = special.eot
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Trip numbers of every batch of an epoch: a shuffle that depends on (seed, epoch) alone.

    Trips are sorted by length within pools of some batches, so that little padding is computed.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * POOL):
        pool = order[start : start + batch_size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def budget_batches(lengths: NDArray[np.int64], block_size: int, token_budget: int) -> list[NDArray[np.int64]]:
    """All trips, shortest first, in batches of at most `token_budget` padded tokens (one trip alone may exceed)."""
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    for end in range(1, len(order) + 1):
        last = end == len(order)
        if last or (end + 1 - start) * min(int(lengths[order[end]]) + 1, block_size) > token_budget:
            batches.append(order[start:end])
            start = end
    return batches
