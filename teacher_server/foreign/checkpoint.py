"""Teachers made elsewhere: weights-only `.pt` files and LM-TAD's own training checkpoints.

Both go through the inert reader (`unpickler.py`): nothing in them is executed, and LM-TAD's code is not needed.
Nothing is invented either: what a file does not say is an error, not a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from teacher_server.artifact import TIED, check_weights
from teacher_server.errors import BadArtifact
from teacher_server.foreign.torch_zip import TorchZip
from teacher_server.foreign.unpickler import Record, StoredTensor
from teacher_server.model import ModelConfig

EMBEDDING, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"


@dataclass(frozen=True)
class ForeignTeacher:
    """What such a file knows: weights and sizes, but hardly anything of the grid."""

    kind: str  # "weights-only" or "original checkpoint"
    state_dict: dict[str, Tensor]  # float32, names as in an artifact
    model: ModelConfig
    grid_shape: tuple[int, int] | None  # rows, columns; None where the file does not say
    pad_token: int | None  # None where the file does not say
    iteration: int | None


def read_foreign(path: Path) -> ForeignTeacher:
    """Read either form, told apart by its keys. Raises BadArtifact with one line naming the file and the field."""
    with TorchZip(path) as file:
        try:
            return _read(file, file.content())
        except (ValueError, RecursionError) as error:
            raise BadArtifact(f"{path}: {' '.join(str(error).split())}") from None


def _read(file: TorchZip, content: Any) -> ForeignTeacher:
    top = _fields(content, "the file's content")
    original = "model" in top and "state_dict" not in top
    state = _state_dict(file, _needed(top, "model" if original else "state_dict", ""))
    config = _fields(_needed(top, "model_config", ""), "model_config")
    model = _model_config(config, state)
    _drop_tied_head(state)
    check_weights(state, model)
    pad = config.get("pad_token")
    return ForeignTeacher(
        kind="original checkpoint" if original else "weights-only",
        state_dict=state,
        model=model,
        grid_shape=_grid_shape(top) if original else None,
        pad_token=pad if type(pad) is int and pad >= 0 else None,
        iteration=top["iter_num"] if type(top.get("iter_num")) is int else None,
    )


def _state_dict(file: TorchZip, raw: object) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for full_name, stored in _fields(raw, "the state dict").items():
        name = str(full_name).removeprefix("_orig_mod.")
        if not isinstance(stored, StoredTensor):
            raise ValueError(f"state dict entry {full_name!r} is no tensor")
        if name.endswith(".attn.bias"):  # the causal mask, a buffer
            continue
        if name in state:
            raise ValueError(f"tensor {name} is there twice, with and without _orig_mod.")
        tensor = file.tensor(stored)
        if not tensor.is_floating_point():
            raise ValueError(f"tensor {name} holds {str(tensor.dtype).removeprefix('torch.')}, no floats")
        state[name] = tensor.float()
    return state


def _model_config(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ModelConfig:
    """Other keys (`logging`, `log_file`, ...) say nothing about the model and are passed over."""
    if _typed(config, "integer_poe", bool):
        raise ValueError(
            "model_config.integer_poe is true: such a model takes positions from the row in its batch, so a trip's "
            "score depends on its batch-mates; it cannot be a teacher"
        )
    return ModelConfig(
        block_size=_size(config, "block_size", state, POSITIONS),
        vocab_size=_size(config, "vocab_size", state, EMBEDDING),
        n_layer=_typed(config, "n_layer", int),
        n_head=_typed(config, "n_head", int),
        n_embd=_typed(config, "n_embd", int),
        dropout=float(_typed(config, "dropout", int, float)),
        bias=_typed(config, "bias", bool),
    )


def _size(config: Mapping[str, Any], name: str, state: Mapping[str, Tensor], tensor: str) -> int:
    """A size that the weights know; the config may leave it out (absent, None or -1) but not contradict them."""
    if tensor not in state or state[tensor].dim() != 2:
        raise ValueError(f"tensor {tensor} is missing or no matrix")
    found = state[tensor].shape[0]
    if config.get(name) not in (None, -1) and _typed(config, name, int) != found:
        raise ValueError(f"model_config.{name} is {config[name]}, but {tensor} has {found} rows")
    return found


def _drop_tied_head(state: dict[str, Tensor]) -> None:
    head = state.pop(TIED, None)
    if head is not None and not torch.equal(head, state[EMBEDDING]):
        raise ValueError(f"{TIED} differs from {EMBEDDING}, but in LM-TAD the two are one")


def _grid_shape(top: Mapping[str, Any]) -> tuple[int, int]:
    dataset = _fields(_needed(top, "dataset_config", ""), "dataset_config")
    shape = _needed(dataset, "grip_size", "dataset_config.")
    match shape:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    raise ValueError(f"dataset_config.grip_size must be [rows, columns], got {str(shape)[:60]}")


def _fields(value: object, where: str) -> dict[str, Any]:
    """A dict, or the fields of an object whose class is not known here."""
    if isinstance(value, Record):
        return value.fields
    if not isinstance(value, dict):
        raise ValueError(f"{where} is neither a dict nor an object with fields, but {type(value).__name__}")
    return value


def _needed(values: Mapping[str, Any], name: str, prefix: str) -> Any:
    if name not in values:
        there = ", ".join(str(key) for key in list(values)[:12])
        raise ValueError(f"{prefix}{name} is missing (there are: {there or 'no fields'})")
    return values[name]


def _typed(config: Mapping[str, Any], name: str, *kinds: type) -> Any:
    value = _needed(config, name, "model_config.")
    if type(value) not in kinds:
        raise ValueError(f"model_config.{name} must be of type {kinds[-1].__name__}, got {str(value)[:60]}")
    return value
