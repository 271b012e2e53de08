"""Whole studies through the command line, small ones: what they leave, and what they refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import optuna
import pytest
import yaml
from safetensors.torch import load_file
from torch import equal

from tests.trainer.datasets import Outcome, files_in, refused, small_city, trainer
from trainer.teacher.pool import Patience

STUDY = """
optimizer_config: {batch_size: 16}
optuna:
  n_trials: 3
  max_epochs: 1
  heartbeat_s: 1
  search_space:
    ranges:
      optimizer_config.learning_rate: {min: 0.0005, max: 0.01, log: true}
      trajectory_encoder_config.num_layers: {choices: [1, 2]}
  final_run: {max_epochs: 1, seeds: [1, 2]}
  vanilla_baseline: {max_epochs: 1, seeds: [1, 2]}
"""


class Bench:
    """A small city, and studies on it."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.cache = root, small_city(root / "city", roads=100), root / "cache"
        (root / "study.yaml").write_text(STUDY)

    @property
    def where(self) -> tuple[str | Path, ...]:
        return ("--data", self.data, "--cache", self.cache, "--cpu-threads", "1")

    def tune(self, out: Path, *words: str | Path, teacher: str = "uniform") -> Outcome:
        config = ("--config", self.root / "study.yaml")
        return trainer("tune", *self.where, *config, "--out", out, "--teacher", teacher, *words)


def small(**changes: object) -> tuple[str, ...]:
    """Flags for a study without final runs, with other values of the section `optuna`."""
    quick = {"final_run.enabled": False, "vanilla_baseline.enabled": False, **changes}
    return tuple(word for key, value in quick.items() for word in ("--set", f"optuna.{key}={value}"))


def trials_of(out: Path, name: str = "study") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{out / 'study.db'}").trials


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def study(bench: Bench) -> tuple[Path, str]:
    outcome = bench.tune(bench.root / "study")
    assert outcome.status == 0, outcome.err
    return bench.root / "study", outcome.out


def test_every_trial_is_a_run_with_its_values(study: tuple[Path, str]) -> None:
    out, _ = study
    for trial in trials_of(out):
        run = out / "trials" / str(trial.number)
        config = yaml.safe_load((run / "config.yaml").read_text())
        for key, value in trial.params.items():
            section, name = key.split(".")
            assert config[section][name] == value
        assert config["training"]["seed"] == 42  # the same for all
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert max(line.get("val/next_step_acc", 0) for line in lines) == trial.value
        assert (run / "checkpoints" / "best.safetensors").exists()
    assert len({str(trial.params) for trial in trials_of(out)}) == 3


def test_the_summary_has_both_arms_with_mean_and_spread(study: tuple[Path, str]) -> None:
    out, said = study
    summary = json.loads((out / "summary.json").read_text())
    assert summary["trials"] == {"finished": 3}
    best = max(trials_of(out), key=lambda trial: (trial.value, -trial.number))
    assert summary["best"]["trial"] == best.number
    assert summary["best"]["values"] == best.params
    assert summary["arms"].keys() == {"tuned", "vanilla"}
    for name, arm in summary["arms"].items():
        assert [run["seed"] for run in arm["runs"]] == [1, 2]
        first, second = (run["next_step_accuracy"] for run in arm["runs"])
        assert arm["mean"]["next_step_accuracy"] == pytest.approx((first + second) / 2)
        assert arm["spread"]["next_step_accuracy"] == pytest.approx(abs(first - second) / 2**0.5)
        assert (arm["mean"]["kl"] is None) == (name == "vanilla")
        for run in arm["runs"]:
            found = json.loads((out / run["run"] / "summary.json").read_text())
            assert found["model_digest"] == run["model_digest"]
            assert found["teacher"]["kind"] == ("uniform" if name == "tuned" else "none")
            config = yaml.safe_load((out / run["run"] / "config.yaml").read_text())
            assert config["training"]["seed"] == run["seed"]
            # The arms differ in the teacher alone.
            assert config["optimizer_config"]["learning_rate"] == best.params["optimizer_config.learning_rate"]
    assert summary["difference"]["seeds"] == [1, 2]
    if (Path(__file__).parents[2] / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}(-dirty)?", summary["commit"])
    for words in ("tuned (2)", "vanilla (2)", "tuned - vanilla", "±", "best.yaml"):
        assert words in said


def test_pictures_need_no_network(study: tuple[Path, str]) -> None:
    plots = study[0] / "plots"
    assert {file.name for file in plots.iterdir()} >= {"history.html", "epochs.html", "values.html", "plotly.min.js"}
    assert '<script charset="utf-8" src="plotly.min.js">' in (plots / "history.html").read_text()


def test_best_yaml_trains_and_gives_the_final_run(study: tuple[Path, str], bench: Bench, tmp_path: Path) -> None:
    out, _ = study
    words = ("--config", out / "best.yaml", "--seed", "1", "--teacher", "uniform", "--out", tmp_path / "run")
    outcome = trainer("train", *bench.where, *words)
    assert outcome.status == 0, outcome.err
    assert "have no effect" not in outcome.err
    run = json.loads((out / "summary.json").read_text())["arms"]["tuned"]["runs"][0]["run"]
    mine, theirs = (load_file(folder / "checkpoints" / "best.safetensors") for folder in (tmp_path / "run", out / run))
    assert all(equal(mine[name], value) for name, value in theirs.items())


def test_a_study_that_is_done_does_nothing_more(study: tuple[Path, str], bench: Bench) -> None:
    out, _ = study
    runs = {name: made for name, made in files_in(out).items() if name.startswith(("trials", "finals"))}
    assert bench.tune(out).status == 0
    assert {name: made for name, made in files_in(out).items() if name.startswith(("trials", "finals"))} == runs


def test_more_trials_and_more_seeds_go_on_with_a_study(bench: Bench, tmp_path: Path) -> None:
    assert bench.tune(tmp_path / "s", *small(n_trials=1)).status == 0
    assert bench.tune(tmp_path / "s", *small(n_trials=2, **{"final_run.enabled": True})).status == 0
    assert [trial.state.name for trial in trials_of(tmp_path / "s")] == ["COMPLETE"] * 2
    runs = json.loads((tmp_path / "s" / "summary.json").read_text())["arms"]["tuned"]["runs"]
    assert [run["seed"] for run in runs] == [1, 2]


def test_a_study_without_a_teacher_has_one_arm(bench: Bench, tmp_path: Path) -> None:
    assert bench.tune(tmp_path / "s", "--set", "optuna.n_trials=1", teacher="none").status == 0
    summary = json.loads((tmp_path / "s" / "summary.json").read_text())
    assert summary["arms"].keys() == {"tuned"}
    assert not any(key.startswith("distill.") for key in summary["best"]["values"])


def test_plain_hoser_can_come_first(bench: Bench, tmp_path: Path) -> None:
    flags = small(n_trials=1, **{"vanilla_baseline_pretune.enabled": True, "vanilla_baseline_pretune.max_epochs": 1})
    outcome = bench.tune(tmp_path / "s", *flags)
    assert outcome.out.index("final run 0: vanilla before tuning, seed 42") < outcome.out.index("trial 0:")
    assert json.loads((tmp_path / "s" / "summary.json").read_text())["arms"].keys() == {"vanilla before tuning"}


def test_another_sampler(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.tune(tmp_path / "s", *small(**{"sampler.sampler_type": "cmaes"}))
    assert outcome.status == 0, outcome.err


DIVERGING = "{optimizer_config.learning_rate: {choices: [0.001, 1.0e+30]}}"


def test_a_trial_that_diverges_is_an_outcome(bench: Bench, tmp_path: Path) -> None:
    flags = small(n_trials=4, **{"search_space.ranges": DIVERGING, "sampler.sampler_type": "random"})
    outcome = bench.tune(tmp_path / "s", "--set", "training.max_bad_steps=0", *flags)
    assert outcome.status == 0, outcome.err
    trials = json.loads((tmp_path / "s" / "summary.json").read_text())["trials"]
    assert trials.keys() == {"finished", "diverged"}
    assert sum(trials.values()) == 4
    assert "was not finite" in outcome.out


def test_a_study_in_which_nothing_was_trained_to_its_end(bench: Bench, tmp_path: Path) -> None:
    ranges = DIVERGING.replace("0.001, ", "")
    flags = ("--set", "training.max_bad_steps=0", *small(n_trials=2, **{"search_space.ranges": ranges}))
    outcome = bench.tune(tmp_path / "s", *flags)
    assert outcome.status == 1
    said = "no trial of the study was trained to its end (2 diverged); nothing to choose"
    assert outcome.err.splitlines()[-1] == f"trainer: error: {said}"


def test_a_teacher_that_is_not_there_is_loud(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.commands.tune.Patience", partial(Patience, connect_s=0.3))
    outcome = bench.tune(tmp_path / "s", *small(), teacher="grpc://127.0.0.1:9")
    refused(outcome, "no teacher answers", status=3)
    assert not (tmp_path / "s" / "study.db").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "optuna.search_space.temp_max=6"), "config.optuna.search_space.temp_max: the run was made with 5.0"),
        (("--set", "optuna.max_epochs=2"), "config.optuna.max_epochs: the run was made with 1, this is 2"),
        (("--set", "training.seed=7"), "config.training.seed: the run was made with 42, this is 7"),
        (("--teacher", "none"), "teacher: the run was made with uniform, this is none"),
    ],
)
def test_another_study_in_the_same_folder_is_refused(
    words: tuple[str, ...], said: str, study: tuple[Path, str], bench: Bench
) -> None:
    before = files_in(study[0] / "trials")
    refused(bench.tune(study[0], *words), "cannot go on with this study", said)
    assert files_in(study[0] / "trials") == before


def test_another_version_of_the_trainer_is_refused(
    study: tuple[Path, str], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs of a study come from the same code, or their difference would mean nothing."""
    monkeypatch.setattr("trainer.tuning.origin.code_digest", lambda: "f" * 64)
    refused(bench.tune(study[0]), "cannot go on with this study", "trainer's code")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+nothing://user:secret@host/db", "--storage postgresql+nothing://user:***@host/db: "),
        ("oracle://user:secret@host/db", "--storage oracle://user:***@host/db: needs the Python package"),
        ("no url", "--storage (not shown): cannot be used"),
        ("sqlite:////nowhere/at/all.db", "cannot be used (unable to open database file)"),
    ],
)
def test_a_storage_that_cannot_be_used(url: str, said: str, bench: Bench, tmp_path: Path) -> None:
    line = refused(bench.tune(tmp_path / "s", "--storage", url), said)
    assert "secret" not in line


def test_a_storage_for_several_studies(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_TUNE_STORAGE", f"sqlite:///{tmp_path / 'all.db'}")
    for name in ("one", "two"):
        assert bench.tune(tmp_path / name, *small(n_trials=1)).status == 0
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'all.db'}")
    assert {"one", "two"} <= set(names)
    assert not (tmp_path / "one" / "study.db").exists()


def test_a_file_in_the_folder_s_place(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    refused(bench.tune(tmp_path / "s"), "cannot write a study here")


def test_a_run_folder_that_cannot_be_written_is_loud(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "s"
    out.mkdir()
    (out / "trials").write_text("in the way")
    outcome = bench.tune(out)
    assert outcome.status == 2
    assert f"error: {out / 'trials' / '0'}: cannot write a run here" in outcome.err
    assert [trial.state.name for trial in trials_of(out)] == ["FAIL", "WAITING"]


def test_without_the_extra_the_command_says_what_to_install() -> None:
    """And the other commands do not import it: they would not start here."""
    code = (
        "import sys; sys.modules['optuna'] = None; sys.argv = ['trainer', 'tune', '--data', 'x']\n"
        "from trainer.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stderr == "trainer: error: trainer tune needs optuna: pip install 'hoser-distill[tune]'\n"


def test_torchrun_is_refused(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(bench.tune(tmp_path / "s"), "start it several times with the same --out")
