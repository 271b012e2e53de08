"""Half precision: near the float32 numbers, and a scale that adapts without losing a step."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.test_student import student_of, trips_on
from trainer.checkpoint import Progress, load_progress, save_progress
from trainer.config import Config, Training
from trainer.config_file import load_config
from trainer.data.features import Labels
from trainer.errors import BadInput
from trainer.examples import Example
from trainer.learner import Learner
from trainer.precision import Precision, precision_for
from trainer.schedule import make_optimizer
from trainer.step import Objective
from trainer.train import set_numerics

OBJECTIVE = Objective(0.0, 1.0, 3.0, 1.0)


def learner_and_example(kind: str) -> tuple[Learner, Example]:
    roads, features = trips_on(np.random.default_rng(1), 8, 9)
    student = student_of(np.random.default_rng(1), roads, older_time=False)
    choice = torch.where(features.candidate_mask.any(-1), 0, -100)
    example = Example(features, Labels(choice, torch.full_like(choice, 30)), None)
    optimizer = make_optimizer(student, Config().optimizer_config)
    return Learner(student, optimizer, OBJECTIVE, precision=Precision(kind)), example


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_half_step_is_near_a_whole_one(kind: str) -> None:
    whole, example = learner_and_example("off")
    half, _ = learner_and_example(kind)
    seen: list[torch.dtype] = []
    half.student.navigator.q_proj.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    (a, taken_a), (b, taken_b) = whole.step([example]), half.step([example])
    assert taken_a
    assert taken_b
    assert set(seen) == {torch.bfloat16 if kind == "bf16" else torch.float16}
    assert b.means(OBJECTIVE)["loss"] == pytest.approx(a.means(OBJECTIVE)["loss"], rel=2e-2)
    assert a.means(OBJECTIVE)["loss"] != b.means(OBJECTIVE)["loss"]
    assert half.student.embed().roads.dtype == torch.float32
    pairs = list(zip(whole.student.parameters(), half.student.parameters(), strict=True))
    ours = torch.cat([p.grad.flatten() for _, p in pairs if p.grad is not None])
    theirs = torch.cat([p.grad.flatten() for p, _ in pairs if p.grad is not None])
    assert ours.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99
    assert float(ours.norm()) == pytest.approx(float(theirs.norm()), rel=5e-2)  # not scaled any more


def test_a_scale_that_overflows_is_halved_and_the_step_taken_all_the_same() -> None:
    learner, example = learner_and_example("fp16")
    learner.precision.scaler.load_state_dict(learner.precision.scaler.state_dict() | {"scale": 2.0**40})
    before = copy.deepcopy(learner.student.state_dict())
    sums, taken = learner.step([example])
    assert taken
    assert sums.steps == int((example.labels.choice >= 0).sum())  # counted once
    assert learner.precision.scaler.get_scale() < 2.0**40
    assert any(not torch.equal(before[name], value) for name, value in learner.student.state_dict().items())
    other, _ = learner_and_example("fp16")
    other.step([example])  # from the usual scale, which does not overflow
    for a, b in zip(learner.student.parameters(), other.student.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("kind", ["off", "fp16"])
def test_a_loss_that_is_not_finite_ends_the_tries(kind: str) -> None:
    learner, example = learner_and_example(kind)
    with torch.no_grad():
        learner.student.navigator.v_proj.weight[0, 0] = torch.nan
    assert learner.step([example])[1] is False


def test_the_scale_is_kept_in_the_checkpoint(tmp_path: Path) -> None:
    learner, example = learner_and_example("fp16")
    learner.precision.scaler.load_state_dict(learner.precision.scaler.state_dict() | {"scale": 2.0**40})
    learner.step([example])
    save_progress(tmp_path / "last.pt", learner, Progress(step=1))
    again, _ = learner_and_example("fp16")
    assert load_progress(tmp_path / "last.pt", again).step == 1
    assert again.precision.scaler.state_dict() == learner.precision.scaler.state_dict()
    assert (
        again.precision.scaler.get_scale()
        == learner.precision.scaler.get_scale()
        != Precision("fp16").scaler.get_scale()
    )


def test_precisions_of_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert not precision_for("off", cpu).scaler.is_enabled()
    assert not precision_for("bf16", cpu).scaler.is_enabled()
    with pytest.raises(BadInput, match="fp16 needs a CUDA device"):
        precision_for("fp16", cpu)


def test_off_in_yaml(tmp_path: Path) -> None:
    """YAML reads it as false."""
    file = tmp_path / "config.yaml"
    file.write_text("training: {amp: off}")
    assert load_config(file).training.amp == "off"
    assert load_config(None, ["training.amp=off"]).training.amp == "off"
    assert load_config(None, ["training.amp=bf16"]).training.amp == "bf16"
    with pytest.raises(BadInput, match="amp"):
        load_config(None, ["training.amp=fp8"])
    assert Training().amp == "off"


def test_deterministic_algorithms_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        set_numerics(Config(), None)
        assert not torch.are_deterministic_algorithms_enabled()
        set_numerics(Config(training=Training(deterministic=True)), None)
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
