"""LM-TAD against the original's logits, read from both foreign forms; and what attention must not see."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from teacher_server.artifact import load_artifact
from teacher_server.export import export_foreign
from teacher_server.foreign.grid_source import grid_from_file
from teacher_server.model import LMTAD, ModelConfig

SMALL = ModelConfig(block_size=10, vocab_size=30, n_layer=2, n_head=2, n_embd=16)


def small() -> LMTAD:
    model = LMTAD(SMALL)
    model.initialise(torch.Generator().manual_seed(1))
    return model.eval()


@pytest.mark.parametrize("name", ["original_checkpoint.pt", "weights_only.pt"])
def test_golden_logits(golden: Path, tmp_path: Path, name: str) -> None:
    grid_file = golden / "grid.json"
    export_foreign(golden / name, grid_from_file(grid_file), tmp_path / "teacher")
    artifact = load_artifact(tmp_path / "teacher")
    model = artifact.build()
    cell_of = json.loads(grid_file.read_text())["road_to_token"]
    expected = load_file(golden / "lmtad_scores.safetensors")
    with (golden / "trips.csv").open() as file:
        trips = [json.loads(row["rid_list"]) for row in csv.DictReader(file)]
    for number in range(6):
        tokens = [artifact.description.special.sot, *(cell_of[road] for road in trips[number])]
        logits = model.logits(model(torch.tensor([tokens])))[0]
        torch.testing.assert_close(logits, expected[f"logits.{number}"], rtol=0, atol=1e-4)


def test_a_position_sees_nothing_to_its_right() -> None:
    model = small()
    tokens = torch.randint(30, (1, 10), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[0, 6:] = (other[0, 6:] + 1) % 30
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[:, :6], model(other)[:, :6], rtol=0, atol=1e-6)
        assert (model(tokens)[:, 6:] - model(other)[:, 6:]).abs().max() > 1e-3


def test_positions_matter_and_do_not_come_from_the_row() -> None:
    model = small()
    tokens = torch.tensor([[1, 2, 3], [1, 2, 3]])
    with torch.no_grad():
        hidden = model(tokens)
        torch.testing.assert_close(hidden[0], hidden[1], rtol=0, atol=1e-6)
        same = model(torch.tensor([[4, 4]]))[0]
        assert (same[0] - same[1]).abs().max() > 1e-4


def test_gradients_reach_every_parameter() -> None:
    model = LMTAD(ModelConfig(10, 30, 2, 2, 16, bias=True)).train()
    tokens = torch.randint(30, (4, 10), generator=torch.Generator().manual_seed(0))
    model.logits(model(tokens)).logsumexp(-1).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("c_attn.bias"):  # its key part cancels in the softmax
            assert parameter.grad.abs().sum() > 0, name


def test_a_sequence_beyond_the_block_size() -> None:
    with pytest.raises(ValueError, match="a sequence of 11 tokens exceeds the block size 10"):
        small()(torch.zeros(1, 11, dtype=torch.int64))


def test_sizes_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        ModelConfig(10, 30, 2, 3, 16)
    with pytest.raises(ValueError, match="n_layer must be at least 1"):
        ModelConfig(10, 30, 0, 2, 16)
