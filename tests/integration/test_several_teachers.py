"""Whole runs while several real teachers are killed, frozen, all away or replaced.

Whatever happens to them: every step is trained and logged once, in order and with the teacher's answer, the student is
the undisturbed run's, and nothing takes longer than the deadlines say.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.line import Line, city_teacher
from tests.integration.mortal import Mortal, places
from tests.integration.runs import assert_close, assert_undisturbed, epochs, steps_logged, train
from tests.integration.watched import running
from tests.serving import RunningTeacher
from trainer.teacher.member import LONGEST_BACKOFF_S
from trainer.teacher.members import PROBE_S

EPOCHS = 4
DEADLINE_S = 3.0
RETURN_S = 1.3 * LONGEST_BACKOFF_S + PROBE_S  # until somebody who is back is asked again
# Nothing is kept, so that every step of every epoch has to be asked about.
ASKING = ("--set", "distill.keep_labels=false", "--set", f"distill.deadline_s={DEADLINE_S}", *epochs(EPOCHS))


@pytest.fixture(scope="module")
def three(line: Line) -> Iterator[list[Mortal]]:
    teachers = [Mortal(line.teacher) for _ in range(3)]
    try:
        yield teachers
    finally:
        for teacher in teachers:
            teacher.kill()


@pytest.fixture
def teachers(three: list[Mortal]) -> list[Mortal]:
    """All well."""
    for teacher in three:
        teacher.recover()
    for teacher in three:
        teacher.ready()
    return three


@pytest.fixture(scope="module")
def undisturbed(line: Line, served: RunningTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(line, out, "--teacher", f"grpc://{served.grpc}", *ASKING)
    return out


def test_one_of_two_is_killed(line: Line, served: RunningTeacher, taught_run: Path, tmp_path: Path) -> None:
    out, victim = tmp_path / "run", Mortal(line.teacher)
    try:
        victim.ready()
        with running(line, out, f"{victim.where},{served.grpc}", *epochs(2)) as run:
            run.goes_on(1, 60)
            victim.kill()
            run.ends(0, DEADLINE_S)
    finally:
        victim.kill()
    assert_close(taught_run, out)
    assert steps_logged(out) == steps_logged(taught_run)
    assert json.loads((out / "summary.json").read_text())["teacher_calls"]["failovers"] >= 1


@pytest.mark.slow
def test_kills_and_freezes_at_random_moments(
    line: Line, teachers: list[Mortal], undisturbed: Path, tmp_path: Path
) -> None:
    """One of three stays well, so nothing takes longer than the deadline of the questions that a frozen one has."""
    chance, events = random.Random(9), 0
    with running(line, tmp_path / "run", places(teachers), *ASKING) as run:
        run.goes_on(1, 60)
        while run.step < 16:
            victim, events = chance.choice(teachers[:2]), events + 1
            time.sleep(chance.uniform(0, 0.5))
            if events % 2:
                victim.freeze()
                run.goes_on(3, DEADLINE_S)  # asked of all three, so some of them of this one
                victim.wake()
            else:
                victim.kill()
                victim.back()
                run.goes_on(1, DEADLINE_S)
        run.ends(0, DEADLINE_S)
    assert events >= 4
    calls = assert_undisturbed(tmp_path / "run", undisturbed)["teacher_calls"]
    assert all(calls["endpoints"][victim.where]["failures"] for victim in teachers[:2])


@pytest.mark.slow
def test_all_are_away_for_a_while(line: Line, teachers: list[Mortal], undisturbed: Path, tmp_path: Path) -> None:
    killed, frozen = teachers[:2]
    with running(line, tmp_path / "run", places([killed, frozen]), *ASKING) as run:
        run.goes_on(2, 60)
        killed.kill()
        frozen.freeze()
        run.until(lambda: "; waiting (limit 1800 s)" in run.said(), DEADLINE_S + PROBE_S)
        stands_at = run.step
        time.sleep(1)
        assert run.step == stands_at
        frozen.wake()
        killed.back()
        run.goes_on(1, RETURN_S)
        said = run.ends(0, 15)
    assert f"no teacher answers at {killed.where}, {frozen.where} (" in said
    assert "a teacher answers again after " in said
    assert assert_undisturbed(tmp_path / "run", undisturbed)["teacher_calls"]["waited_s"] >= 1


@pytest.mark.slow
def test_one_is_replaced_by_another_teacher(
    line: Line, teachers: list[Mortal], undisturbed: Path, tmp_path: Path
) -> None:
    """It is passed over; that the others are away meanwhile does not end the run, they may come back."""
    digest = city_teacher(tmp_path / "other", line.city, seed=4)
    replaced, *others = teachers
    with running(line, tmp_path / "run", places(teachers), *ASKING) as run:
        run.goes_on(2, 60)
        replaced.kill()
        replaced.back(tmp_path / "other")
        run.goes_on(1, DEADLINE_S)
        for teacher in others:
            teacher.freeze()  # lest the run ends before the other teacher is up
        notice = f"the teacher at {replaced.where} is {digest} (float32), not "
        run.until(lambda: notice in run.said(), RETURN_S)
        for teacher in others:
            teacher.wake()
        run.goes_on(1, RETURN_S)
        said = run.ends(0, 15)
    assert said.count(notice) == 1
    assert_undisturbed(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_all_are_replaced_by_another_teacher(
    line: Line, teachers: list[Mortal], served: RunningTeacher, undisturbed: Path, tmp_path: Path
) -> None:
    digest = city_teacher(tmp_path / "other", line.city, seed=4)
    out, asked = tmp_path / "run", teachers[:2]
    with running(line, out, places(asked), *ASKING) as run:
        run.goes_on(2, 60)
        for teacher in asked:
            teacher.kill()
            teacher.back(tmp_path / "other")
        said = run.ends(2, RETURN_S)
    for teacher in asked:
        assert f"the teacher at {teacher.where} is {digest} (float32), not " in said
    assert f"training stopped at step {run.step}, --resume continues" in said
    with running(line, out, served.grpc, *ASKING, "--resume") as run:
        run.ends(0, 60)
    assert_undisturbed(out, undisturbed)


@pytest.mark.slow
def test_a_run_without_teachers_ends_where_it_can_go_on(
    line: Line, teachers: list[Mortal], served: RunningTeacher, undisturbed: Path, tmp_path: Path
) -> None:
    """Once when its patience is over, once at once."""
    out = tmp_path / "run"
    for asked, flags, reason, seconds in (
        (teachers[:2], ("--set", "distill.wait_limit_s=1"), "; waited 1 s", 1),
        (teachers[2:], ("--set", "distill.on_teacher_loss=fail", "--resume"), "(UNAVAILABLE: ", 0),
    ):
        with running(line, out, places(asked), *ASKING, *flags) as run:
            run.goes_on(2, 60)
            for teacher in asked:
                teacher.kill()
            said = run.ends(3, seconds)
        assert f"trainer: error: no teacher answers at {', '.join(teacher.where for teacher in asked)} (" in said
        assert reason in said
        assert f"training stopped at step {run.step}, --resume continues" in said
    with running(line, out, served.grpc, *ASKING, "--resume") as run:
        run.ends(0, 60)
    assert_undisturbed(out, undisturbed)
