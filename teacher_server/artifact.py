"""The product's own teacher format: a folder with `model.safetensors` (float32) and `teacher.json`.

Weights carry the original's names without what is derived: no `_orig_mod.` prefix, no `attn.bias` masks, no
`lm_head.weight` (tied to `transformer.wte.weight`).
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from teacher_server import description as descriptions
from teacher_server.description import TeacherDescription
from teacher_server.errors import BadArtifact, BadSettings
from teacher_server.files import is_empty, whole_folder
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.vocabulary import Grid, SpecialTokens

WEIGHTS = "model.safetensors"
DESCRIPTION = "teacher.json"
TIED = "lm_head.weight"

__all__ = ["Artifact", "TeacherDescription", "load_artifact", "read_description", "write_artifact"]


@dataclass(frozen=True)
class Artifact:
    """A verified teacher: its description and its float32 weights by name."""

    description: TeacherDescription
    state_dict: dict[str, Tensor]

    def build(self) -> LMTAD:
        """The model on the CPU, in eval mode, without gradients. It shares memory with `state_dict`."""
        with torch.device("meta"):
            model = LMTAD(self.description.model)
        weights = {**self.state_dict, TIED: self.state_dict["transformer.wte.weight"]}
        model.load_state_dict(weights, assign=True)
        model.lm_head.weight = model.transformer["wte"].weight  # type: ignore[assignment]
        return model.eval().requires_grad_(False)


def load_artifact(folder: Path, *, copied: bool = False) -> Artifact:
    """Read and verify a teacher, its digest included. Raises BadArtifact, which names the file.

    The weights are the file itself, mapped, which processes share and which must not be written to while one of them
    lives: it would be killed. `copied`: they are a copy of it in memory, and the file may change.
    """
    description = read_description(folder)
    weights = folder / WEIGHTS
    state_dict = _read_weights(weights, description.model, copied)
    found = descriptions.content_digest(state_dict, description.model, description.special, description.grid)
    if found != description.digest:
        raise BadArtifact(
            f"{folder}: the content has digest {found[:16]}..., but {DESCRIPTION} says "
            f"{description.digest[:16]}...: one of the two files was changed; export the teacher again"
        )
    return Artifact(description, state_dict)


def read_description(folder: Path) -> TeacherDescription:
    """teacher.json alone, checked in itself but not against the weights. Raises BadArtifact."""
    if folder.is_dir() and is_empty(folder):  # in practice a volume that nobody has filled yet
        raise BadArtifact(
            f"{folder} holds no teacher: put one there with `teacher export SOURCE --out {folder}`, "
            "or let `docker compose --profile demo up` fit a small one"
        )
    for file in (folder, folder / DESCRIPTION, folder / WEIGHTS):
        if not file.exists():
            raise BadArtifact(f"{file} does not exist: a teacher is a folder with {DESCRIPTION} and {WEIGHTS}")
    path = folder / DESCRIPTION
    try:
        return descriptions.from_json(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise BadArtifact(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except OSError as error:
        raise BadArtifact(f"{path}: cannot be read: {error}") from error
    except (UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BadArtifact(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise BadArtifact(f"{path}: {error}") from None


def write_artifact(
    folder: Path,
    state_dict: Mapping[str, Tensor],
    model: ModelConfig,
    special: SpecialTokens,
    grid: Grid,
    provenance: Mapping[str, Any],
    overwrite: bool = False,
) -> TeacherDescription:
    """Write a teacher so that the folder appears whole or not at all; an empty one is filled, the description last.

    `overwrite` replaces an older artifact at the same place, never any other folder. Raises BadArtifact for
    weights that do not fit the description, BadSettings where the folder may not be written.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    try:
        descriptions.check_vocabulary(model.vocab_size, special, grid)
        check_weights(weights, model)
    except ValueError as error:
        raise BadArtifact(f"this is no teacher: {error}") from None
    _check_target(folder, overwrite)
    digest = descriptions.content_digest(weights, model, special, grid)
    description = TeacherDescription(model, special, grid, dict(provenance), digest)
    with whole_folder(folder) as fresh:
        save_file(weights, fresh / WEIGHTS)
        text = json.dumps(descriptions.to_json(description), indent=2, allow_nan=False)
        (fresh / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    return description


def check_weights(state_dict: Mapping[str, Tensor], model: ModelConfig) -> None:
    """Raise ValueError unless names, shapes and types are those of such an LM-TAD, all values finite."""
    _check_shapes({name: tuple(tensor.shape) for name, tensor in state_dict.items()}, model)
    for name, tensor in state_dict.items():
        if tensor.dtype != torch.float32:
            raise ValueError(f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')}, float32 is needed")
        # Not isfinite(tensor).all(), which makes copies of the tensor's size.
        if not all(math.isfinite(end) for end in tensor.aminmax()):
            raise ValueError(f"tensor {name} holds values that are not finite")


def _check_shapes(found: Mapping[str, tuple[int, ...]], model: ModelConfig) -> None:
    # Counted first, so that an absurd n_layer is refused before a model of that depth is laid out.
    layers = {match[1] for name in found if (match := re.match(r"transformer\.h\.(\d+)\.", name))}
    if len(layers) != model.n_layer:
        raise ValueError(f"the weights have {len(layers)} layers, but model.n_layer is {model.n_layer}")
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in LMTAD(model).state_dict().items() if name != TIED}
    for name in expected.keys() - found.keys():
        raise ValueError(f"tensor {name} is missing")
    for name in found.keys() - expected.keys():
        raise ValueError(f"unknown tensor {name}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"tensor {name} has shape {list(found[name])}, but the model's sizes need {list(shape)}")


def _read_weights(path: Path, model: ModelConfig, copied: bool) -> dict[str, Tensor]:
    if not os.access(path, os.R_OK):  # safetensors would say that there is no such file
        raise BadArtifact(f"{path}: cannot be read by this user: allow it with chmod a+r")
    try:
        with _copy_in_memory(path) if copied else nullcontext(path) as file:
            state_dict = _mapped_weights(file, model)
        check_weights(state_dict, model)
    except SafetensorError as error:
        raise BadArtifact(f"{path}: not a complete safetensors file: {error}") from None
    except OSError as error:
        raise BadArtifact(f"{path}: cannot be read: {error}") from error
    except (ValueError, RuntimeError) as error:
        raise BadArtifact(f"{path}: {error}") from None
    return state_dict


@contextmanager
def _copy_in_memory(path: Path) -> Iterator[Path]:
    """A file without a name. Unlike a heap's its memory is free as soon as nothing maps it any more."""
    with path.open("rb") as source, os.fdopen(os.memfd_create(path.name), "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        yield Path(f"/proc/self/fd/{copy.fileno()}")


def _mapped_weights(path: Path, model: ModelConfig) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        _check_shapes({name: tuple(file.get_slice(name).get_shape()) for name in names}, model)
        return {name: file.get_tensor(name) for name in names}


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and is_empty(folder)):
        return
    if not (folder.is_dir() and (folder / DESCRIPTION).is_file() and (folder / WEIGHTS).is_file()):
        raise BadSettings(f"{folder} exists and is no teacher artifact: choose another folder")
    if not overwrite:
        raise BadSettings(f"{folder} already holds a teacher: choose another folder or pass --overwrite")
