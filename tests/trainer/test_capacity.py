"""The capacity model against queueing theory, and `trainer capacity`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from trainer.__main__ import app
from trainer.capacity.model import Fleet, Service, simulate
from trainer.capacity.plan import Training, attempt, enough, least
from trainer.errors import BadInput


def mean_value_analysis(students: int, step_s: float, service_s: float) -> float:
    """Steps a second of all: the exact solution of a closed network of one exponential server and thinking customers.

    Reiser and Lavenberg 1980: an arriving customer sees the queue of a network with one customer less.
    """
    queue = throughput = 0.0
    for count in range(1, students + 1):
        response = service_s * (1 + queue)
        throughput = count / (step_s + response)
        queue = throughput * response
    return throughput


@pytest.mark.parametrize(("students", "step_s"), [(1, 2.0), (4, 4.0), (10, 8.0), (12, 3.0)])
def test_agrees_with_queueing_theory(students: int, step_s: float) -> None:
    """Exponential times, one question a batch, nothing asked ahead: there the answer is known."""
    service = Service(batch_s=0.0, question_s=1.0, spread=1.0, most=1)
    found = simulate(service, Fleet(students, 1, step_s, ahead=0), steps=30_000 // students)
    expected = mean_value_analysis(students, step_s, 1.0)
    assert found.steps_a_second * students == pytest.approx(expected, rel=0.03)
    assert found.busy == pytest.approx(expected, rel=0.03)  # utilisation law: each question takes a second
    assert students * found.waited == pytest.approx(students - step_s * expected, rel=0.05)  # Little's law


def test_a_student_alone() -> None:
    service = Service(batch_s=0.1, question_s=0.2, around_s=0.05)
    asking = simulate(service, Fleet(1, 1, 1.0, ahead=0), 100)
    assert asking.steps_a_second == pytest.approx(1 / 1.35)
    assert asking.waited == pytest.approx(0.35 / 1.35)
    assert asking.answers_s == pytest.approx(0.35)
    ahead = simulate(service, Fleet(1, 1, 1.0, ahead=1), 100)
    assert (ahead.steps_a_second, ahead.waited) == (pytest.approx(1.0), 0.0)
    assert ahead.busy == pytest.approx(0.3)


def test_too_many_students_get_what_full_batches_give() -> None:
    service = Service(batch_s=0.4, question_s=0.1, spread=0.2, most=6)
    found = simulate(service, Fleet(60, 2, 0.5), 200)
    assert found.steps_a_second * 60 == pytest.approx(2 * service.most_a_second, rel=0.02)
    assert found.busy == pytest.approx(1.0, abs=0.01)
    assert found.questions_a_batch == pytest.approx(6, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        Service, st.floats(0, 1), st.floats(0.01, 1), st.floats(0, 0.5), st.sampled_from([0.0, 0.3]), st.integers(1, 5)
    ),
    st.builds(Fleet, st.integers(1, 12), st.integers(1, 5), st.floats(0.05, 3), st.integers(0, 4)),
    st.integers(0, 9),
)
def test_nobody_is_faster_than_possible(service: Service, fleet: Fleet, seed: int) -> None:
    found = simulate(service, fleet, 20, seed)
    again = simulate(service, fleet, 20, seed)
    assert (found.steps_a_second, found.waited) == (again.steps_a_second, again.waited)
    assert 0 <= found.waited <= 1
    assert 0 <= found.busy <= 1 + 1e-9
    assert 1 <= found.questions_a_batch <= service.most
    if not service.spread:
        assert found.answers_s.min() >= service.around_s + service.of(1) - 1e-9


def test_enough_is_enough_and_little_more() -> None:
    service, fleet = Service(0.02, 0.09, 0.003, 0.1, 8), Fleet(100, 1, 0.78)
    found = enough(service, fleet, 0.05)
    assert found is not None
    assert found.outcome.waited <= 0.05
    assert found.fleet.teachers >= least(service, fleet) - 1
    fewer = attempt(service, replace(fleet, teachers=found.fleet.teachers - 1))
    assert fewer.outcome.waited > 0.05
    training = Training(steps=100, epochs=10)
    assert found.teacher_hours(training, kept=False) == pytest.approx(10 * found.teacher_hours(training, kept=True))


def test_nothing_is_enough_for_answers_that_come_too_late() -> None:
    assert enough(Service(2.0, 0.5), Fleet(3, 1, 0.5, ahead=1), 0.05) is None


def test_the_command() -> None:
    words = ["capacity", "--students", "20", "--step-ms", "800", "--question-ms", "90", "--batch-ms", "20", "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    told = json.loads(done.stdout)
    half, chosen, twice = told["fleets"]
    assert half["waited"] > 0.05 >= chosen["waited"] >= twice["waited"]
    assert half["fleet"]["teachers"] < told["least_teachers"] <= chosen["fleet"]["teachers"]
    table = CliRunner().invoke(app, [*words[:-1], "--teachers", "3"], catch_exceptions=False).stdout
    assert "20 students" in table
    assert "answer p50" in table
    late = CliRunner().invoke(app, [*words, "--ahead", "0", "--step-ms", "100"])
    assert isinstance(late.exception, BadInput)
    assert "no number of teachers is enough" in str(late.exception)
