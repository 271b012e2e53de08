"""From a configuration and prepared data to a student on a device."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from trainer.config import Config
from trainer.config_file import config_from
from trainer.data.city import City
from trainer.errors import BadInput
from trainer.student.buffers import network_buffers
from trainer.student.card import StudentCard
from trainer.student.checkpoint import check_fit, clean_state, load_student, verify_buffers
from trainer.student.hoser import HOSER, HoserConfig
from trainer.student.road_network import EncoderSizes


def build_student(config: Config, city: City, older_time: bool = False) -> HOSER:
    """A student with fresh weights for the data's road network. Raises BadInput for sizes that do not fit."""
    encoder, trajectory = config.road_network_encoder_config, config.trajectory_encoder_config
    sizes = EncoderSizes(
        types=_rows("type_num_embeddings", encoder.type_num_embeddings, len(city.meta.classes)),
        zones=_rows("zone_id_num_embeddings", encoder.zone_id_num_embeddings, city.zones),
        road_id=encoder.road_id_emb_dim,
        len=encoder.len_emb_dim,
        type=encoder.type_emb_dim,
        lon=encoder.lon_emb_dim,
        lat=encoder.lat_emb_dim,
        zone_id=encoder.zone_id_emb_dim,
    )
    if encoder.road_id_num_embeddings not in (None, city.road_map.roads):
        raise BadInput(
            f"road_network_encoder_config.road_id_num_embeddings is {encoder.road_id_num_embeddings}, "
            f"the data has {city.road_map.roads} roads; leave it empty"
        )
    if sizes.zone_id != sizes.road or sizes.road != trajectory.hidden_dim or 2 * sizes.road % trajectory.num_heads:
        raise BadInput(
            f"widths do not fit: a road's parts add up to {sizes.road}, zone_id_emb_dim is {sizes.zone_id}, hidden_dim "
            f"is {trajectory.hidden_dim}; all three must be equal, and twice that a multiple of num_heads"
        )
    shape = HoserConfig(
        encoder=sizes,
        heads=trajectory.num_heads,
        layers=trajectory.num_layers,
        dropout=trajectory.dropout,
        navigator_hidden=config.navigator_config.hidden_dim,
        older_time=older_time,
        grad_checkpoint=trajectory.grad_checkpoint,
    )
    return HOSER(shape, network_buffers(city))


def _rows(name: str, configured: int | None, needed: int) -> int:
    if configured is not None and configured < needed:
        raise BadInput(f"road_network_encoder_config.{name} is {configured}, the data needs {needed} or more")
    return configured or needed


def load_trained(file: Path, city: City) -> tuple[HOSER, Config, StudentCard]:
    """A trained student, checked against the data. Raises BadInput."""
    state, card = load_student(file)
    config = config_from(card.config)
    return restore(state, config, city, str(file)), config, card


def restore(state: dict[str, Tensor], config: Config, city: City, where: str) -> HOSER:
    """A student with the weights of a state dict, ours or the original's. Raises BadInput when it does not fit."""
    state, older_time = clean_state(state)
    verify_buffers(state, network_buffers(city), where)
    student = build_student(config, city, older_time)
    check_fit(state, student.state_dict(), where)
    student.load_state_dict(state)
    return student


def pick_device(name: str) -> torch.device:
    """`auto` takes a GPU where there is one; under `torchrun` each process its own, which becomes the current one.

    Raises BadInput.
    """
    own = os.environ.get("LOCAL_RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else None
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise BadInput(f"--device {name}: must be auto, cpu or cuda")
    device = torch.device(f"cuda:{own}" if name == "cuda" and own else name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"--device {name}: there is no CUDA device here")
    if device.index is not None:
        if device.index >= torch.cuda.device_count():
            raise BadInput(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices here")
        torch.cuda.set_device(device)  # events and collectives without a device of their own mean this one
    return device
