"""Student weights on disk: safetensors with a description in the header, and the original's state dicts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.errors import BadInput
from trainer.files import whole_file
from trainer.student.card import FORMAT, StudentCard, opened

BUFFER_TOLERANCE = 1e-5


def clean_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """An original state dict as ours, and whether it has the older temporal encoder.

    Strips `_orig_mod.`; drops the attention's mask buffers and the dead `navigator.time_estimator.*`.
    """
    plain = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    kept = {
        name: value
        for name, value in plain.items()
        if not name.endswith(".attn.bias") and not name.startswith("navigator.time_estimator.")
    }
    return kept, "trajectory_encoder.temporal_encoder.time_emb.weight" in kept


def check_fit(state: dict[str, Tensor], needed: dict[str, Tensor], where: str) -> None:
    """Raises BadInput where names or shapes of a state dict are not the needed ones."""
    for what, names in (("lacks", needed.keys() - state.keys()), ("has the unknown", state.keys() - needed.keys())):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise BadInput(f"{where}: {what} {', '.join(sorted(names)[:3])}{more}: does not fit the configuration")
    for name, value in needed.items():
        if state[name].shape != value.shape:
            shapes = f"{list(state[name].shape)}, the configuration gives {list(value.shape)}"
            raise BadInput(f"{where}: {name} has shape {shapes}")
        if state[name].is_floating_point() != value.is_floating_point():
            raise BadInput(f"{where}: {name} holds {state[name].dtype}, not {value.dtype}")


def verify_buffers(state: dict[str, Tensor], buffers: dict[str, Tensor], where: str) -> None:
    """Raises BadInput when a checkpoint's feature buffers are not those of the data."""
    for name, expected in buffers.items():
        key = name if name == "road2zone" else f"road_network_encoder.{name}"
        found = state.get(key)
        if found is None or found.shape != expected.shape:
            shape = "nothing" if found is None else list(found.shape)
            hint = _hint(name)
            raise BadInput(
                f"{where}: {key} has shape {shape}, the data gives {list(expected.shape)}: other data?{hint}"
            )
        if not torch.allclose(found.double(), expected.double(), atol=BUFFER_TOLERANCE, rtol=BUFFER_TOLERANCE):
            raise BadInput(
                f"{where}: {key} differs from what the data gives: it was trained on other data{_hint(name)}"
            )


def _hint(buffer: str) -> str:
    """Zones are no property of the roads: a partition made elsewhere is another one."""
    files = "road_network_partition and zone_trans_mat.npy"
    return f" (put its own {files} into the data folder)" if "zone" in buffer else ""


def save_student(file: Path, state: dict[str, Tensor], card: StudentCard) -> None:
    """Writes weights and card. Raises CannotWrite."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole_file(file) as partial:
        save_file(tensors, partial, metadata={"format": FORMAT, "card": json.dumps(asdict(card))})
        partial.chmod(0o644)  # safetensors writes for its own user only


def load_student(file: Path) -> tuple[dict[str, Tensor], StudentCard]:
    """Reads what `save_student` wrote. Raises BadInput."""
    with opened(file, "pt") as (stream, card):
        return {name: stream.get_tensor(name) for name in stream.keys()}, card  # noqa: SIM118
