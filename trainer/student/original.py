"""Checkpoints of the original HOSER: state dicts in torch's zip files, read without executing anything, and written."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainer.errors import BadInput
from trainer.files import whole_file

WRAPPINGS = ("model_state_dict", "state_dict", "model")  # keys under which a training checkpoint holds the weights
BLOCK = re.compile(r"trajectory_encoder\.transformer\.h\.(\d+)\.")
ZONES = "road_network_encoder.zone_id_emb.weight"
MASK = "trajectory_encoder.transformer.h.{}.attn.bias"
DISTANCE, KEY_BIAS = "navigator.metric_distance_proj.weight", "attn.relative_position_emb_k.weight"


def read_original(file: Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save` or safetensors, its names without `_orig_mod.`. Raises BadInput."""
    content = _load(file)
    for name in WRAPPINGS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content:
        raise BadInput(f"{file}: holds no state dict, but {type(content).__name__}")
    state: dict[str, Tensor] = {}
    for full_name, value in content.items():
        name = str(full_name).replace("_orig_mod.", "")
        if not isinstance(value, Tensor):
            raise BadInput(f"{file}: {full_name} is no tensor: this is no state dict")
        if name in state:
            raise BadInput(f"{file}: {name} is there twice, with and without _orig_mod.")
        state[name] = _sound(value, f"{file}: {name}")
    if DISTANCE not in state or "road2zone" not in state:
        known = ", ".join(list(state)[:3])
        raise BadInput(f"{file}: is no state dict of HOSER, which has road2zone and {DISTANCE} (here: {known}, ...)")
    return state


def _load(file: Path) -> Any:
    if not file.is_file():
        raise BadInput(f"{file}: no such file")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise BadInput(f"{file}: not a safetensors file ({error})") from None
    try:
        with zipfile.ZipFile(file) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        raise BadInput(f"{file}: no complete checkpoint of torch.save: cut short, or of another kind") from None
    if packed:
        raise BadInput(f"{file}: has compressed entries, which torch.save never writes")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        if "Unsupported global" in str(error) or "weights_only" in str(error).lower():
            found = re.search(r"GLOBAL (\S+)", str(error))
            named = f" ({found[1]})" if found else ""
            raise BadInput(
                f"{file}: holds more than tensors and plain values{named}, and nothing in it was executed; "
                "save model.state_dict() alone, where you trust the file"
            ) from None
        raise BadInput(f"{file}: cannot be read ({' '.join(str(error).split())[:160]})") from None


def _sound(value: Tensor, where: str) -> Tensor:
    """The tensor, unless its layout promises more than the file holds, or a weight is not finite."""
    if value.layout != torch.strided or value.device.type != "cpu":
        raise BadInput(f"{where} is not a plain tensor ({value.layout}, {value.device})")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise BadInput(f"{where} claims shape {list(value.shape)}, more than the file holds")
    if value.is_floating_point() and not value.isfinite().all():
        raise BadInput(f"{where} holds values that are not finite")
    return value


def sizes_of(state: dict[str, Tensor], where: str) -> dict[str, dict[str, int]]:
    """The configuration that the shapes of an original state dict imply, by section and key. Raises BadInput."""

    def size(name: str, axis: int) -> int:
        if name not in state or state[name].dim() != 2:
            raise BadInput(f"{where}: {name} is missing or no matrix: this is no state dict of HOSER")
        return state[name].shape[axis]

    encoder = "road_network_encoder."
    rows = {f"{name}_emb_dim": size(f"{encoder}{name}_emb.weight", 0) for name in ("len", "lon", "lat")}
    columns = {f"{name}_emb_dim": size(f"{encoder}{name}_emb.weight", 1) for name in ("road_id", "type", "zone_id")}
    tables = {f"{name}_num_embeddings": size(f"{encoder}{name}_emb.weight", 0) for name in ("type", "zone_id")}
    hidden = size(DISTANCE, 0)
    trajectory = {
        "hidden_dim": hidden,
        "num_layers": len(_blocks(state)),
        "num_heads": 2 * hidden // max(1, size(f"trajectory_encoder.transformer.h.0.{KEY_BIAS}", 0)),
    }
    mask = state.get(MASK.format(0))
    if mask is not None and mask.dim():
        trajectory["max_len"] = mask.shape[-1]  # the original takes no longer trips
    return {
        "road_network_encoder_config": rows | columns | tables,
        "trajectory_encoder_config": trajectory,
        "navigator_config": {"hidden_dim": size("navigator.q_proj.weight", 0)},
    }


def original_state(state: dict[str, Tensor], max_len: int, zones: int) -> dict[str, Tensor]:
    """A student's state dict with all that the original's strict loading wants.

    That is the causal masks [1, 1, max_len, max_len] and the unused first time estimator (zeros). More rows of the zone
    table, up to `zones`, change nothing: such zones have no roads and no edges.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    whole[ZONES] = torch.cat([whole[ZONES], whole[ZONES].new_zeros(zones - len(whole[ZONES]), whole[ZONES].shape[1])])
    for block in _blocks(state):
        whole[MASK.format(block)] = torch.ones(max_len, max_len).tril().view(1, 1, max_len, max_len)
    d = len(state[DISTANCE])
    unused = {"0.weight": (d // 2, 3 * d), "0.bias": (d // 2,), "2.weight": (1, d // 2), "2.bias": (1,)}
    return whole | {f"navigator.time_estimator.{name}": torch.zeros(shape) for name, shape in unused.items()}


def write_original(file: Path, state: dict[str, Tensor]) -> None:
    """Writes a state dict that the original loads. Raises CannotWrite."""
    with whole_file(file) as partial:
        torch.save(state, partial)


def _blocks(state: dict[str, Tensor]) -> list[int]:
    return sorted({int(found[1]) for name in state if (found := BLOCK.match(name))})
