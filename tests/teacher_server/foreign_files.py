"""Makes foreign checkpoints of a tiny LM-TAD, and says how a bad one must be refused."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from teacher_server.errors import BadArtifact
from teacher_server.foreign.checkpoint import read_foreign
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.vocabulary import Grid

CONFIG: dict[str, Any] = {
    "block_size": -1,
    "vocab_size": 9,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 8,
    "dropout": 0.2,
    "bias": False,
    "pad_token": 6,
    "log_file": "",
    "logging": False,
    "integer_poe": False,
}
GRID = Grid(0.0, 0.15, 0.0, 0.25, 0.1, 0.1, 2, 3)


class ModelSettings:
    """Stands for a class that the reader does not know; pickled by reference, then looked up in vain."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def weights() -> dict[str, Tensor]:
    model = LMTAD(ModelConfig(5, 9, 1, 2, 8))
    model.initialise(torch.Generator().manual_seed(0))
    return dict(model.state_dict())


def seed_form(path: Path, **config: Any) -> Path:
    state = {f"_orig_mod.{name}": tensor for name, tensor in weights().items()}
    torch.save({"state_dict": state, "model_config": {**CONFIG, **config}}, path)
    return path


def original_form(path: Path, **changes: Any) -> Path:
    mask = {"transformer.h.0.attn.bias": torch.ones(5, 5).tril().view(1, 1, 5, 5)}
    content = {
        "model": OrderedDict({**weights(), **mask}),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "model_config": ModelSettings(**CONFIG),
        "dataset_config": SimpleNamespace(grip_size=[2, 3], data_dir=Path("/data")),
        "args": argparse.Namespace(seed=1, device=torch.device("cpu"), sizes={1, 2}, shape=torch.Size([1])),
        "iter_num": 7,
        "best_val_loss": torch.tensor(0.5),
    }
    torch.save({name: value for name, value in {**content, **changes}.items() if value is not None}, path)
    return path


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(BadArtifact) as caught:
        read_foreign(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for part in parts:
        assert part in message
