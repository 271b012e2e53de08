"""What a study searches: the section `optuna`, and the keys that vary."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.research_settings import RESEARCH
from trainer.config import Config
from trainer.config_file import load_config
from trainer.errors import BadInput
from trainer.tuning.settings import Tuning, WindowRange
from trainer.tuning.space import Dimension, base_config, search_space, windows_of

TEACHER = "grpc://127.0.0.1:9"


def config_of(text: str) -> Config:
    import yaml

    return Config.model_validate({"optuna": yaml.safe_load(text)})


def test_the_research_file_gives_its_space(tmp_path: Path) -> None:
    (tmp_path / "Beijing.yaml").write_text(RESEARCH)
    config = load_config(tmp_path / "Beijing.yaml")
    assert search_space(config, TEACHER) == [
        Dimension("distill.lambda", 0.001, 0.1, log=True),
        Dimension("distill.temperature", 1.0, 5.0),
        Dimension("distill.window", 2, 8),
    ]
    optuna = config.optuna
    assert (optuna.n_trials, optuna.max_epochs, optuna.sampler.sampler_type) == (12, 8, "cmaes")
    assert (optuna.pruner.min_resource, optuna.pruner.reduction_factor) == (5, 3)
    assert optuna.final_run.seeds == optuna.vanilla_baseline.seeds == [42, 43, 44]
    assert not optuna.vanilla_baseline_pretune.enabled


def test_the_defaults_are_the_research_code_s_but_for_the_sampler() -> None:
    assert windows_of(search_space(Config(), TEACHER)) == [8, 7, 6, 5, 4, 3, 2]
    assert search_space(Config(), TEACHER)[2] == Dimension("distill.window", 2, 8)
    assert Tuning().sampler.sampler_type == "tpe"
    assert Tuning().search_space.window == WindowRange(min=2, max=8)


@pytest.mark.parametrize(("window", "fixed"), [("5", 5), ("full", "full")])
def test_a_fixed_window_is_no_dimension(window: str, fixed: object) -> None:
    config = config_of(f"search_space: {{window: {window}}}")
    space = search_space(config, TEACHER)
    assert [dimension.key for dimension in space] == ["distill.lambda", "distill.temperature"]
    assert base_config(config, 3).distill.window == fixed
    assert base_config(config, 3).optimizer_config.max_epoch == 3
    assert windows_of(space) == []


def test_the_uniform_control_has_no_history() -> None:
    assert "distill.window" not in [dimension.key for dimension in search_space(Config(), "uniform")]


RANGES = """
search_space:
  ranges:
    optimizer_config.learning_rate: {min: 0.0001, max: 0.01, log: true}
    data.candidate_top_k: {min: 0, max: 8}
    trajectory_encoder_config.num_layers: {choices: [1, 2, 4]}
"""


def test_any_key_can_have_a_range_and_without_a_teacher_only_they_vary() -> None:
    assert search_space(config_of(RANGES), "none") == [
        Dimension("optimizer_config.learning_rate", 0.0001, 0.01, log=True),
        Dimension("data.candidate_top_k", 0, 8),
        Dimension("trajectory_encoder_config.num_layers", choices=[1, 2, 4]),
    ]
    assert len(search_space(config_of(RANGES), TEACHER)) == 6
    with pytest.raises(BadInput, match="nothing to tune: without a teacher"):
        search_space(Config(), "none")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("optimizer_config.learning_rte", "unknown key optimizer_config.learning_rte: did you mean"),
        ("optimiser.learning_rate", "unknown key optimiser"),
        ("distill.lambda", "distill.lambda has keys of its own (optuna.search_space.lambda_min, ...)"),
        ("training.seed", "training.seed is the same for all trials"),
        ("optimizer_config.max_epoch", "is the same for all trials"),
        ("distill.teacher", "is the same for all trials"),
        ("data_dir", "is the same for all trials"),
        ("optimizer_config.warmup_ratio", "optimizer_config.warmup_ratio = 2"),  # 1 is the most
    ],
)
def test_keys_that_cannot_vary(key: str, said: str) -> None:
    config = config_of(f"search_space: {{ranges: {{{key}: {{min: 1, max: 2}}}}}}")
    with pytest.raises(BadInput) as caught:
        search_space(config, TEACHER)
    assert said in str(caught.value)
    assert str(caught.value).startswith("optuna.search_space")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{n_trial: 3}", "unknown key optuna.n_trial: did you mean optuna.n_trials?"),
        ("{n_trials: 0}", "optuna.n_trials = 0: must be greater than 0"),
        ("{sampler: {sampler_type: gp}}", "must be 'tpe', 'cmaes' or 'random'"),
        ("{search_space: {lambda_min: 0.2}}", "lambda_min is greater than lambda_max"),
        ("{search_space: {lambda_min: 0}}", "optuna.search_space.lambda_min = 0: must be greater than 0"),
        ("{search_space: {window: {min: 8, max: 2}}}", "min is greater than max"),
        ("{search_space: {window: 0}}", "optuna.search_space.window = 0"),
        ("{search_space: {ranges: {a.b: {min: 1}}}}", "must have min and max, or choices"),
        ("{search_space: {ranges: {a.b: {min: 1, max: 2, choices: [1]}}}}", "must have min and max, or choices"),
        ("{search_space: {ranges: {a.b: {min: 2, max: 1}}}}", "min is greater than max"),
        ("{search_space: {ranges: {a.b: {min: 0, max: 1, log: true}}}}", "log needs min and max above 0"),
        ("{search_space: {ranges: {a.b: {mn: 0}}}}", "unknown key optuna.search_space.ranges.a.b.mn"),
        ("{final_run: {seeds: []}}", "optuna.final_run.seeds = []"),
    ],
)
def test_mistakes_in_the_section(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"optuna: {text}")
    with pytest.raises(BadInput) as caught:
        load_config(tmp_path / "c.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
