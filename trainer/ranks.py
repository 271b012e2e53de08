"""The processes of one run: one alone, or several that `torchrun` started, one a device.

Every process holds the same student. A step's micro-batches are dealt out over the ranks and their gradients summed
once, before the optimiser; so R ranks with batches of b trips make the steps of one rank with batches of R b.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.errors import RankLost

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of what all ranks have to do."""
        return items[self.rank :: self.world]

    def sum(self, values: Tensor) -> Tensor:
        """Sums over all ranks, in place. Raises RankLost."""
        if self.world > 1:
            with _peers():
                dist.all_reduce(values)
        return values

    def most(self, value: int, device: torch.device) -> int:
        """The greatest of all ranks' values. Raises RankLost."""
        if self.world == 1:
            return value
        values = torch.tensor([value], device=device)
        with _peers():
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return int(values)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums all gradients over all ranks, in one message; a rank without a micro-batch adds zero. RankLost."""
        if self.world == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
        self.sum(flat)
        for parameter, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = part.view_as(parameter)

    def wait(self) -> None:
        """Until all ranks are here. Raises RankLost."""
        if self.world > 1:
            with _peers():
                dist.barrier()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what the backends raise when a connection breaks or a peer keeps silent
        reason = " ".join(str(error).split())[:120]
        raise RankLost(f"another process of this run is gone ({reason}); its own message says why") from error


@contextmanager
def joined(device: torch.device, patience_s: float) -> Iterator[Ranks]:
    """Joins the ranks that `torchrun` describes in the environment; alone without it.

    `patience_s`: how long a rank that keeps silent is waited for.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=patience_s))
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
