"""Studies as real processes: workers that are killed, stopped, or work side by side, with a served teacher."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.integration.line import Line
from tests.integration.runs import assert_equal, steps_logged, train, wait_for_step
from tests.serving import RunningTeacher, calls, serve

STUDY = """
optimizer_config: {batch_size: 16}
profiling: {log_interval: 1}
optuna:
  n_trials: 2
  max_epochs: 3
  pruner_type: none
  heartbeat_s: 1
  search_space: {window: 3}
  final_run: {max_epochs: 2, seeds: [1]}
  vanilla_baseline: {max_epochs: 1, seeds: [1]}
"""


def command(line: Line, out: Path, *flags: str, teacher: str = "uniform") -> list[str]:
    out.mkdir(exist_ok=True)
    (out / "given.yaml").write_text(STUDY)
    where = ("--data", str(line.data), "--cache", str(line.cache), "--out", str(out), "--cpu-threads", "1")
    return [
        *(sys.executable, "-m", "trainer", "tune", *where, "--config", str(out / "given.yaml")),
        *("--teacher", teacher, "--labels", f"{out}.labels", *flags),
    ]


def setting(*values: str) -> tuple[str, ...]:
    """Flags for other values of the section `optuna`."""
    return tuple(word for value in values for word in ("--set", f"optuna.{value}"))


def tune(line: Line, out: Path, *flags: str, status: int = 0, teacher: str = "uniform") -> str:
    """Runs to the end; returns what it said on stderr."""
    words = command(line, out, *flags, teacher=teacher)
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def begin(line: Line, out: Path, *flags: str, teacher: str = "uniform") -> subprocess.Popen[str]:
    words = command(line, out, *flags, teacher=teacher)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def trials_of(out: Path, name: str = "study") -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{out / 'study.db'}").trials


def finished(out: Path, name: str = "study") -> list[FrozenTrial]:
    trials = trials_of(out, name)
    assert all(trial.state in (TrialState.COMPLETE, TrialState.FAIL) for trial in trials)
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


@pytest.fixture(scope="module")
def undisturbed(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuning") / "study"
    tune(line, out)
    return out


@pytest.mark.slow
def test_a_study_goes_on_after_signals_and_a_kill(line: Line, undisturbed: Path, tmp_path: Path) -> None:
    """All trials and runs count once, and those that were disturbed become what they would have been."""
    out = tmp_path / "study"
    for run, step, number in (
        ("trials/0", 3, signal.SIGINT),
        ("trials/1", 8, signal.SIGKILL),
        ("finals/0", 2, signal.SIGTERM),
    ):
        process = begin(line, out)
        wait_for_step(out / run, step, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if number != signal.SIGKILL:
            assert process.returncode == 128 + number, errors
            assert f"{out / run}: stopped at step" in errors
            assert "saved; the same command goes on" in errors
    tune(line, out)
    heir, first = assert_once(out, "trials", [None, 0, 1]), trials_of(undisturbed)[0]
    assert [trial.params for trial in trials_of(out) if trial.number in (0, 1, heir.number)] == [first.params] * 3
    assert heir.intermediate_values == first.intermediate_values
    assert heir.value == first.value
    assert_same_run(out / "trials" / str(heir.number), undisturbed / "trials" / "0")
    # Which trial is the best one may depend on how soon the kill was noticed: the values of a trial go by its number.
    heir, alone = assert_once(out, "finals", [None, 0]), tmp_path / "alone"
    train(line, alone, "--teacher", "uniform", "--config", str(out / "finals" / str(heir.number) / "config.yaml"))
    assert heir.intermediate_values == trials_of(undisturbed, "study finals")[0].intermediate_values
    assert heir.value == max(epoch_accuracies(alone))
    assert_same_run(out / "finals" / str(heir.number), alone)


def assert_once(out: Path, kind: str, continued: list[int | None]) -> FrozenTrial:
    """Every run was finished once; of the disturbed one's chain each goes on where the one before stood; its last."""
    name = "study" if kind == "trials" else "study finals"
    assert len(finished(out, name)) == 2
    failed = [trial for trial in trials_of(out, name) if trial.state == TrialState.FAIL]
    (heir,) = [trial for trial in finished(out, name) if "continues" in trial.user_attrs]
    assert [trial.user_attrs.get("continues") for trial in (*failed, heir)] == continued
    return heir


def assert_same_run(run: Path, whole: Path) -> None:
    assert_equal(run, whole)
    assert steps_logged(run) == steps_logged(whole)


def epoch_accuracies(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["val/next_step_acc"] for line in lines if "val/next_step_acc" in line]


@pytest.mark.slow
def test_two_workers_share_a_study(line: Line, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    workers = [begin(line, out, *setting("n_trials=4", "max_epochs=1")) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=200)
        assert worker.returncode == 0, errors
    assert len(finished(out)) == 4
    assert len({trial.user_attrs["begun"] for trial in finished(out)}) == 2
    runs = finished(out, "study finals")
    assert sorted((run.user_attrs["arm"], run.user_attrs["seed"]) for run in runs) == [("tuned", 1), ("vanilla", 1)]
    # The sampler depends on the trial's number, not on the worker.
    assert [trial.params for trial in finished(out)[:2]] == [trial.params for trial in trials_of(undisturbed)[:2]]


@pytest.mark.slow
def test_all_runs_of_a_study_ask_the_teacher_once(line: Line, served: RunningTeacher, tmp_path: Path) -> None:
    """One folder of labels: the first trial fills it, all others and the final runs read it."""
    out, teacher = tmp_path / "study", f"grpc://{served.grpc}"
    before = calls(served)
    one_arm = setting("max_epochs=1", "vanilla_baseline.enabled=false")
    tune(line, out, *one_arm, *setting("n_trials=1"), teacher=teacher)
    asked = calls(served) - before
    assert asked > 0
    tune(line, out, *one_arm, *setting("n_trials=2", "final_run.seeds=[2]"), teacher=teacher)
    assert calls(served) - before == asked
    summary = json.loads((out / "summary.json").read_text())
    assert summary["trials"] == {"finished": 2}
    assert summary["origin"]["teacher"] == served.digest
    for run in summary["arms"]["tuned"]["runs"]:
        found = json.loads((out / run["run"] / "summary.json").read_text())
        assert found["teacher"]["kind"] == "served"
        assert found["labels_kept"] == {"train": 1.0, "test": 1.0}
        assert found["kl"] > 0


def test_a_window_beyond_the_teacher_s_block_is_refused_at_once(
    line: Line, served: RunningTeacher, tmp_path: Path
) -> None:
    window = setting("search_space.window={min: 2, max: 99}")
    errors = tune(line, tmp_path / "study", *window, teacher=f"grpc://{served.grpc}", status=2)
    assert "distill.window is 99, but the teacher's block holds" in errors
    assert not (tmp_path / "study" / "study.db").exists()


@pytest.mark.slow
def test_a_teacher_that_dies_ends_the_study(line: Line, tmp_path: Path) -> None:
    out, flags = tmp_path / "study", ("--set", "distill.on_teacher_loss=fail", "--set", "distill.keep_labels=false")
    with serve(line.teacher) as teacher:
        process = begin(line, out, *flags, teacher=f"grpc://{teacher.grpc}")
        wait_for_step(out / "trials" / "0", 3, process)
        teacher.process.kill()
        teacher.process.wait()
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 3, errors
    assert "no teacher answers" in errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert [trial.state.name for trial in trials_of(out)] == ["FAIL", "WAITING"]
    (waiting,) = [trial for trial in trials_of(out) if trial.state == TrialState.WAITING]
    assert waiting.user_attrs["continues"] == 0
