"""Foreign checkpoints: both forms give one teacher, and what they do not say is never invented."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from teacher_server.artifact import load_artifact
from teacher_server.errors import BadSettings
from teacher_server.export import export_foreign
from teacher_server.foreign.checkpoint import read_foreign
from teacher_server.foreign.grid_source import grid_from_bounds, grid_from_file
from teacher_server.model import ModelConfig
from teacher_server.vocabulary import Grid
from tests.teacher_server.foreign_files import CONFIG, GRID, original_form, refused, seed_form, weights


@pytest.mark.parametrize("make", [seed_form, original_form])
def test_both_forms_give_the_weights(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    teacher = read_foreign(make(tmp_path / "a.pt"))
    expected = {name: tensor for name, tensor in weights().items() if name != "lm_head.weight"}
    assert teacher.state_dict.keys() == expected.keys()
    assert all(torch.equal(teacher.state_dict[name], tensor) for name, tensor in expected.items())
    assert teacher.model == ModelConfig(5, 9, 1, 2, 8, dropout=0.2)
    assert teacher.grid_shape == ((2, 3) if make is original_form else None)
    assert teacher.pad_token == 6


def test_both_golden_forms_give_one_digest(golden: Path, tmp_path: Path) -> None:
    grid = grid_from_file(golden / "grid.json")
    digests = [
        export_foreign(golden / name, grid, tmp_path / name).digest
        for name in ("original_checkpoint.pt", "weights_only.pt")
    ]
    assert digests[0] == digests[1]
    assert load_artifact(tmp_path / "weights_only.pt").description.model.block_size == 96


def test_the_golden_grid_from_bounds(golden: Path) -> None:
    raw = json.loads((golden / "grid.json").read_text())
    bounds = f"{raw['min_lat']},{raw['max_lat']},{raw['min_lng']},{raw['max_lng']}"
    assert grid_from_bounds(bounds, 0.002, 1) == grid_from_file(golden / "grid.json")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in weights().items()}
    torch.save({"state_dict": state, "model_config": CONFIG}, tmp_path / "a.pt")
    teacher = read_foreign(tmp_path / "a.pt")
    assert all(torch.equal(teacher.state_dict[name], state[name].float()) for name in teacher.state_dict)


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Transposed, offset and shared tensors come back by value."""
    flat = torch.arange(300.0) / 300
    state = weights()
    state["transformer.h.0.attn.c_attn.weight"] = flat[20:212].view(8, 24).T
    state["transformer.h.0.attn.c_proj.weight"] = flat[100:164].view(8, 8)
    torch.save({"state_dict": state, "model_config": CONFIG}, tmp_path / "a.pt")
    found = read_foreign(tmp_path / "a.pt").state_dict
    for part in ("c_attn", "c_proj"):
        name = f"transformer.h.0.attn.{part}.weight"
        assert torch.equal(found[name], state[name])
        assert found[name].is_contiguous()


@pytest.mark.parametrize("value", [None, -1, 5])
def test_block_size_comes_from_the_weights(tmp_path: Path, value: int | None) -> None:
    assert read_foreign(seed_form(tmp_path / "a.pt", block_size=value)).model.block_size == 5


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"integer_poe": True}, "integer_poe is true: such a model takes positions from the row in its batch"),
        ({"block_size": 6}, "model_config.block_size is 6, but transformer.wpe.weight has 5 rows"),
        ({"n_layer": 2}, "the weights have 1 layers, but model.n_layer is 2"),
        ({"n_head": 3}, "n_embd 8 is not a multiple of n_head 3"),
        ({"n_head": "2"}, "model_config.n_head must be of type int, got 2"),
        ({"n_embd": 16}, "has shape"),
        ({"bias": True}, "is missing"),
        ({"dropout": None}, "model_config.dropout must be of type float, got None"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    refused(seed_form(tmp_path / "a.pt", **config), expected)


@pytest.mark.parametrize("field", ["n_layer", "n_head", "n_embd", "dropout", "bias", "integer_poe"])
def test_a_missing_field_is_not_invented(tmp_path: Path, field: str) -> None:
    config = {name: value for name, value in CONFIG.items() if name != field}
    torch.save({"state_dict": weights(), "model_config": config}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", f"model_config.{field} is missing")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_config": None}, "model_config is missing"),
        ({"dataset_config": None}, "dataset_config is missing"),
        ({"dataset_config": SimpleNamespace(grid=1)}, "dataset_config.grip_size is missing"),
        ({"dataset_config": {"grip_size": [2]}}, "grip_size must be [rows, columns], got [2]"),
        ({"model": [1]}, "the state dict is neither a dict nor an object"),
        ({"model": {"a": 1}}, "state dict entry 'a' is no tensor"),
        ({"model": {"a": torch.ones(2, dtype=torch.int64)}}, "tensor a holds int64"),
        ({"model": {"a": torch.ones(2)}}, "tensor transformer.wpe.weight is missing"),
        ({"model": {**weights(), "x": torch.ones(1)}}, "unknown tensor x"),
        ({"model": {**weights(), "lm_head.weight": torch.ones(9, 8)}}, "lm_head.weight differs"),
        ({"model": {**weights(), "_orig_mod.lm_head.weight": torch.ones(9, 8)}}, "is there twice"),
    ],
)
def test_a_checkpoint_that_lacks_something(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    refused(original_form(tmp_path / "a.pt", **changes), expected)


def test_a_list_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "neither a dict nor an object with fields, but list")


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (Grid(0.0, 0.25, 0.0, 0.15, 0.1, 0.1, 3, 2), "grip_size says 2 x 3 cells, but the given grid has 3 x 2"),
        (Grid(0.0, 0.25, 0.0, 0.25, 0.1, 0.1, 3, 3), "grip_size says 2 x 3"),
    ],
)
def test_another_grid_than_the_checkpoint_knows(tmp_path: Path, grid: Grid, expected: str) -> None:
    with pytest.raises(BadSettings, match=expected):
        export_foreign(original_form(tmp_path / "a.pt"), grid, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_vocabulary_or_padding_than_the_grid_gives(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="vocabulary of 9 tokens"):
        export_foreign(seed_form(tmp_path / "a.pt"), Grid(0.0, 0.25, 0.0, 0.25, 0.1, 0.1, 3, 3), tmp_path / "out")
    with pytest.raises(BadSettings, match="pad_token is 0"):
        export_foreign(seed_form(tmp_path / "a.pt", pad_token=0), GRID, tmp_path / "out")
