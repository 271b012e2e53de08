"""torch.compile: really compiled, the same numbers, one code for all lengths, and clear words without a compiler."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from tests.trainer.test_student import assert_same_gradients, student_of, trips_on, weighted
from trainer.compiled import compile_student
from trainer.config import Training


@pytest.fixture
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:The .grad attribute of a Tensor")
@pytest.mark.usefixtures("fresh")
def test_compiled_student_is_the_same_student() -> None:
    rng = np.random.default_rng(5)
    sizes = [(17, 12), (12, 20), (20, 14), (15, 17)]
    cases = [trips_on(np.random.default_rng(seed), trips, longest) for seed, (trips, longest) in enumerate(sizes)]
    eager = student_of(rng, cases[0][0], older_time=False)
    student = copy.deepcopy(eager)
    compile_student(student, Training(torch_compile=True, torch_compile_mode="reduce-overhead"))
    assert set(student.state_dict()) == set(eager.state_dict())
    for seed, (_, features) in enumerate(cases):
        ours, plain, mask = student(features), eager(features), features.candidate_mask
        for a, b in zip(ours, plain, strict=True):
            assert torch.allclose(a[mask], b[mask], atol=1e-5)
        weighted(ours, mask, seed).backward()
        weighted(plain, mask, seed).backward()
    assert_same_gradients(student, eager)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 3  # the trifle, the encoder and the navigator, not one for each shape
    assert not counters["graph_break"]
    assert torch.isfinite(copy.deepcopy(student)(cases[0][1])[1]).all()


@pytest.mark.usefixtures("fresh")
def test_nothing_is_compiled_unasked() -> None:
    roads, features = trips_on(np.random.default_rng(0), 3, 5)
    student = student_of(np.random.default_rng(0), roads, older_time=False)
    compile_student(student, Training())
    student(features)
    assert not counters["frames"]


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    student = student_of(np.random.default_rng(0), 30, older_time=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    said = compile_student(student, Training(torch_compile=True))
    assert said is not None
    assert "torch_compile: nothing can be compiled here (no C++ compiler), so training goes on without" in said
    assert student.navigator._compiled_call_impl is None


@pytest.mark.parametrize(
    ("mode", "used"),
    [
        ("default", "default"),
        ("reduce-overhead", "default"),
        ("max-autotune", "max-autotune-no-cudagraphs"),
        ("max-autotune-no-cudagraphs", "max-autotune-no-cudagraphs"),
    ],
)
def test_modes(mode: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mode becomes its like that has no CUDA graphs."""
    asked = []
    monkeypatch.setattr("trainer.compiled._obstacle", lambda device: None)
    student = student_of(np.random.default_rng(0), 30, older_time=False)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(options))
    compile_student(student, Training(torch_compile=True, torch_compile_mode=mode))  # type: ignore[arg-type]
    assert asked == [{"dynamic": True, "mode": used}] * 2
