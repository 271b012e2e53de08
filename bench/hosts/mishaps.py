"""What happens to hosts while two trainers train, and how long a step may wait for its answer then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.hosts.stage import DEADLINE_S, RETURN_S, START_S, TEACHERS, Runs, Stage
from tests.integration.line import city_teacher
from trainer.teacher.pool import RESOLVE_S

AWAY_S = 4.0  # of the trainers
DELAY_S, LOSS = 0.2, 0.05


def kill(stage: Stage, runs: Runs) -> None:
    victim = stage.teachers[0]
    victim.server.kill()
    runs.go_on(2, DEADLINE_S)
    victim.server.back()
    runs.ask_again(victim, START_S + RETURN_S)


def freeze(stage: Stage, runs: Runs) -> None:
    """Longer than any question's deadline."""
    victim = stage.teachers[0]
    victim.server.freeze()
    time.sleep(DEADLINE_S)
    runs.go_on(2, DEADLINE_S)
    victim.server.wake()
    runs.ask_again(victim, RETURN_S)


def cut(stage: Stage, runs: Runs) -> None:
    victim = stage.teachers[0]
    with _cut_off(stage, victim.host.name):
        time.sleep(DEADLINE_S)
        runs.go_on(2, DEADLINE_S)
    runs.ask_again(victim, RETURN_S)


def cut_trainers(stage: Stage, runs: Runs) -> None:
    """Nobody can be asked: both wait, as `on_teacher_loss: wait` says."""
    with _cut_off(stage, *(host.name for host in stage.trainers)):
        runs.until(
            lambda: all("; waiting (limit 1800 s)" in run.said() for run in runs.each), DEADLINE_S + 2 * RETURN_S
        )
        stand_at = [run.step for run in runs.each]
        time.sleep(AWAY_S)
        assert [run.step for run in runs.each] == stand_at, "a step was made without the teacher"
    runs.go_on(1, RETURN_S)
    for run in runs.each:
        assert "a teacher answers again after " in run.said()


def slow(stage: Stage, runs: Runs) -> None:
    """Every teacher is far away, for the rest of the run or a good part of it."""
    with ExitStack() as stack:
        for teacher in stage.teachers:
            stack.enter_context(teacher.host.slow(DELAY_S, LOSS))
        runs.go_on(5, 5 * DEADLINE_S)


def half_open(stage: Stage, runs: Runs) -> None:
    """A host loses its power and comes back: its end of the connections is gone, and nobody was told."""
    victim = stage.teachers[1]
    with _cut_off(stage, victim.host.name):
        victim.server.kill()
        victim.server.back()
        time.sleep(DEADLINE_S)
        runs.go_on(1, DEADLINE_S)
        victim.server.ready()
    runs.ask_again(victim, RETURN_S)


def rolling(stage: Stage, runs: Runs) -> None:
    """All teachers are restarted, one after the other."""
    for teacher in stage.teachers:
        teacher.server.stop()
        teacher.server.back()
        teacher.server.ready()
        runs.ask_again(teacher, RETURN_S)


def replaced(stage: Stage, runs: Runs) -> None:
    """By a teacher of another digest: it is passed over."""
    victim, folder = stage.teachers[2], stage.folder / "other"
    digest = city_teacher(folder, stage.line.city, seed=4)
    before = victim.answered()
    victim.server.kill()
    victim.server.back(folder)
    notice = f"the teacher at {victim.name} is {digest} (float32), not "
    runs.until(lambda: all(notice in run.said() for run in runs.each), START_S + RETURN_S)
    runs.go_on(2, DEADLINE_S)
    assert all(run.said().count(notice) == 1 for run in runs.each)
    assert before > 0
    assert victim.answered() == 0, "the wrong teacher was asked"


def names(stage: Stage, runs: Runs) -> None:
    """The name server dies, and comes back without the address of a teacher that goes away."""
    leaving, others = stage.teachers[0], stage.teachers[1:]
    stage.names.stop()
    time.sleep(RESOLVE_S)
    runs.ask_again(leaving, RETURN_S)  # what was known is still good
    stage.names.lead(TEACHERS, *(teacher.host.address for teacher in others))
    stage.names.start()
    time.sleep(2 * RESOLVE_S)
    before = leaving.answered()
    runs.go_on(2, DEADLINE_S)
    assert leaving.answered() == before, f"{TEACHERS} no longer leads there"
    stage.names.lead(TEACHERS, *(teacher.host.address for teacher in stage.teachers))


@dataclass(frozen=True)
class Mishap:
    """What happens, and how many seconds a step may wait beside what answering takes."""

    happens: Callable[[Stage, Runs], None]
    patience_s: float = DEADLINE_S


MISHAPS = {
    "kill": Mishap(kill),
    "freeze": Mishap(freeze),
    "cut": Mishap(cut),
    "cut-trainers": Mishap(cut_trainers, DEADLINE_S + 3 * RETURN_S + AWAY_S),
    "slow": Mishap(slow, 2 * DEADLINE_S),
    "half-open": Mishap(half_open),
    "rolling": Mishap(rolling),
    "replaced": Mishap(replaced),
    "names": Mishap(names),
}


@contextmanager
def _cut_off(stage: Stage, *hosts: str) -> Iterator[None]:
    for host in hosts:
        stage.network[host].cut()
    try:
        yield
    finally:
        for host in hosts:
            stage.network[host].heal()
