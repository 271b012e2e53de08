"""Searches in one process or several. Which process searches for a trip changes no result."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from trainer.data.features import Network
from trainer.errors import TrainingFailed
from trainer.generate.demand import Demand
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.lock_step import LockStep, places_for
from trainer.generate.route import Found
from trainer.generate.search import SearchSettings
from trainer.student.hoser import HOSER


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
        )
        return LockStep(expander, self.demand, self.settings).run(trips)


def find_with(workers: int, recipe: Recipe, trips: Sequence[int]) -> Iterator[Found]:
    """The same by several processes. Raises TrainingFailed when one dies."""
    if workers == 1:
        yield from recipe.find(trips)
        return
    context = multiprocessing.get_context("spawn")  # a forked child has no right to the parent's threads or device
    content = pickle.dumps(recipe)
    processes: dict[Connection, BaseProcess] = {}
    try:
        for worker in range(workers):
            here, there = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(
                target=_work, args=(there, content, trips[worker::workers]), daemon=True
            )
            process.start()
            there.close()
            processes[here] = process
        yield from _received(processes)
    finally:
        for process in processes.values():
            process.terminate()
            process.join()


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


def _work(connection: Connection, content: bytes, trips: Sequence[int]) -> None:
    """Sends what it finds, then None; a string where it cannot go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    try:
        recipe: Recipe = pickle.loads(content)
        for found in recipe.find(trips):
            connection.send(found)
        connection.send(None)
    except BrokenPipeError:
        return  # the parent is gone
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
