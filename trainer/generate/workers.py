"""Searches in one process or several. Which process searches for a trip changes no result."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from trainer.data.features import Network
from trainer.errors import TrainingFailed
from trainer.generate.demand import Demand
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.lock_step import LockStep, places_for
from trainer.generate.route import Found
from trainer.generate.search import SearchSettings
from trainer.student.hoser import HOSER
from trainer.student.prefixes import Attend, attend


@dataclass(frozen=True)
class Recipe:
    """All that finding trips takes."""

    student: HOSER
    network: Network
    times: StepTimes
    max_steps: int
    angle: str
    demand: Demand
    settings: SearchSettings
    device: torch.device
    threads: int  # CPU threads of each process

    def find(self, trips: Sequence[int]) -> Iterator[Found]:
        """The trips of these indices, as they end, by this process."""
        torch.set_num_threads(self.threads)
        expander = Expander(
            self.student.to(self.device),
            self.network.to(self.device),
            self.times,
            max_steps=self.max_steps,
            angle=self.angle,
            places=places_for(self.settings, len(self.network.out_degree)),
            attend=_attend_on(self.device),
        )
        with _no_garbage():
            yield from LockStep(expander, self.demand, self.settings).run(trips)


def _attend_on(device: torch.device) -> Attend:
    if device.type != "cpu":
        return attend
    from trainer.generate import kernel

    return kernel.attend


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Nodes hold no cycles: to look for some takes an eighth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def finding(workers: int, recipe: Recipe, trips: Sequence[int]) -> Iterator[Iterator[Found]]:
    """The same by several processes, which end with the block.

    To read on raises TrainingFailed when one of them dies.
    """
    if workers == 1:
        yield recipe.find(trips)
        return
    # A forked process begins at once; one with a GPU must be another program.
    context: Any = multiprocessing.get_context("fork" if recipe.device.type == "cpu" else "spawn")
    processes: dict[Connection, BaseProcess] = {}
    try:
        for worker in range(workers):
            here, there = context.Pipe(duplex=False)
            work = (there, [*processes, here], recipe, trips[worker::workers])
            process: BaseProcess = context.Process(target=_work, args=work, daemon=True)
            process.start()
            there.close()
            processes[here] = process
        yield _received(processes)
    finally:
        for connection, process in processes.items():
            process.terminate()
            process.join()
            connection.close()


def _received(processes: dict[Connection, BaseProcess]) -> Iterator[Found]:
    busy = set(processes)
    while busy:
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            try:
                message: Found | str | None = connection.recv()
            except EOFError:
                process = processes[connection]
                process.join()
                raise _failed(f"ended with status {process.exitcode}" + _killed(process.exitcode)) from None
            if isinstance(message, str):
                raise _failed(message)
            if message is None:
                busy.remove(connection)
            else:
                yield message


def _failed(reason: str) -> TrainingFailed:
    return TrainingFailed(f"a worker process failed: {reason}; the same command goes on with what is there")


def _killed(status: int | None) -> str:
    return " (out of memory?)" if status == -signal.SIGKILL else ""


def _work(connection: Connection, parents: list[Connection], recipe: Recipe, trips: Sequence[int]) -> None:
    """Sends what it finds, then None; a string where it cannot go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for each in parents:
        each.close()  # so that a pipe breaks when the parent is gone
    try:
        for found in recipe.find(trips):
            connection.send(found)
        connection.send(None)
    except BrokenPipeError:
        return
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
