"""The golden vectors' data set, prepared: the core's road map, the 24 golden trips, the golden zones."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainer.assemble import restore
from trainer.config import Config
from trainer.data.batches import Batch, collate
from trainer.data.city import City
from trainer.data.features import Features, Labels, Network, build_features, build_labels
from trainer.data.prepare import prepare
from trainer.student.hoser import HOSER


@dataclass(frozen=True)
class Golden:
    """Inputs of ours beside the numbers of the original."""

    city: City
    network: Network
    batch: Batch
    features: Features
    labels: Labels
    student: HOSER
    numbers: dict[str, Tensor]
    search: dict[str, object]


def golden_features(network: Network, batch: Batch) -> tuple[Features, Labels]:
    destination = batch.roads.gather(1, batch.steps[:, None])[:, 0]
    features = build_features(
        network, batch.roads[:, :-1], batch.times[:, :-1], batch.steps, destination, batch.weekend
    )
    return features, build_labels(features, batch.roads[:, 1:], batch.times[:, 1:] - batch.times[:, :-1])


def golden_folder(golden: Path, core_data: Path, data: Path) -> Path:
    """The data that the golden student's buffers were made from; the golden trips are the validation split."""
    data.mkdir()
    for name in ("roadmap.geo", "roadmap.rel", "train.csv", "test.csv"):
        shutil.copy(core_data / name, data / name)
    shutil.copy(golden / "trips.csv", data / "val.csv")
    for name in ("road_network_partition", "zone_trans_mat.npy"):
        shutil.copy(golden / name, data / name)
    return data


def load_golden(golden: Path, core_data: Path, scratch: Path) -> Golden:
    data = golden_folder(golden, core_data, scratch / "data")
    city = prepare(data, scratch / "cache").city
    network = Network.of(city.road_map)
    batch = collate(city.trips["val"], np.arange(24), 1024)
    features, labels = golden_features(network, batch)
    torch.manual_seed(0)
    student = restore(load_file(golden / "hoser_state.safetensors"), Config(), city, "golden").eval()
    return Golden(
        city,
        network,
        batch,
        features,
        labels,
        student,
        load_file(golden / "hoser_batch.safetensors"),
        json.loads((golden / "search.json").read_text()),
    )
