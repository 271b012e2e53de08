"""Our features, student, losses and searches against the numbers of the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.trainer.golden_data import Golden
from trainer.assemble import restore
from trainer.config import Config
from trainer.data.features import IGNORED, step_mask
from trainer.data.trip_text import format_times, parse_time
from trainer.errors import BadInput
from trainer.generate.demand import Demand
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.lock_step import LockStep
from trainer.generate.route import Route
from trainer.generate.search import SearchSettings
from trainer.losses import road_loss_sum, time_loss_sum
from trainer.student.buffers import network_buffers


def gap(ours: Tensor, theirs: Tensor, where: Tensor) -> float:
    """Largest difference over valid slots."""
    assert ours.shape == theirs.shape
    assert where.any()
    return float((ours.double() - theirs.double()).abs()[where].max())


def test_feature_buffers(golden_case: Golden, golden: Path) -> None:
    state = load_file(golden / "hoser_state.safetensors")
    for name, ours in network_buffers(golden_case.city).items():
        theirs = state[name if name == "road2zone" else f"road_network_encoder.{name}"]
        assert ours.dtype == theirs.dtype
        tolerance = 2e-6 if ours.is_floating_point() else 0
        assert gap(ours, theirs, torch.ones_like(ours, dtype=torch.bool)) <= tolerance, name


def test_highway_classes(golden_case: Golden) -> None:
    assert list(golden_case.city.meta.classes) == golden_case.search["highway_classes"]


def test_zone_matrix_is_what_we_derive(golden_case: Golden, golden: Path) -> None:
    from trainer.data.zones import transition_counts

    ours = transition_counts(golden_case.city.trips["train"], golden_case.city.zone_of_road, 40)
    assert np.array_equal(ours, np.load(golden / "zone_trans_mat.npy"))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("roads", "in.trace_road_id"),
        ("temporal_info", "in.temporal_info"),
        ("distance", "in.trace_distance_mat"),
        ("interval", "in.trace_time_interval_mat"),
        ("candidates", "in.candidate_road_id"),
        ("metric_distance", "in.metric_dis"),
        ("metric_angle", "in.metric_angle"),
    ],
)
def test_input_features(golden_case: Golden, ours: str, theirs: str) -> None:
    features = golden_case.features
    value = getattr(features, ours)
    step = step_mask(features.steps, features.roads.shape[1])
    pair = step[:, :, None] & step[:, None, :]
    where = {"distance": pair, "interval": pair, "roads": step, "temporal_info": step}.get(
        ours, features.candidate_mask
    )
    tolerance = 2e-6 if value.is_floating_point() else 0
    assert gap(value, golden_case.numbers[theirs], where) <= tolerance


def test_counts_labels_and_destination(golden_case: Golden) -> None:
    features, numbers = golden_case.features, golden_case.numbers
    step = step_mask(features.steps, features.roads.shape[1])
    assert torch.equal(features.candidate_mask.sum(-1)[step], numbers["in.candidate_len"][step])
    assert torch.equal(golden_case.labels.choice[step], numbers["in.road_label"][step])
    assert torch.equal(features.steps, numbers["in.trace_len"])
    assert torch.equal(features.destination, numbers["in.destination_road_id"])
    mean, std = golden_case.search["log1p_mean"], golden_case.search["log1p_std"]
    ours = (torch.log1p(golden_case.labels.seconds.float()) - mean) / std
    assert gap(ours, numbers["in.timestamp_label"], step) <= 2e-6


def test_embeddings_logits_and_times(golden_case: Golden) -> None:
    features, numbers = golden_case.features, golden_case.numbers
    with torch.no_grad():
        embeddings = golden_case.student.embed()
        logits, times = golden_case.student(features)
    everywhere = torch.ones_like(embeddings.roads, dtype=torch.bool)
    assert gap(embeddings.roads, numbers["out.road_embedding"], everywhere) <= 1e-4
    assert gap(embeddings.zones, numbers["out.zone_embedding"], torch.ones(40, 128, dtype=torch.bool)) <= 1e-4
    assert gap(logits, numbers["out.logits"], features.candidate_mask) <= 1e-4
    assert gap(times, numbers["out.time_pred"], features.candidate_mask) <= 1e-4


def test_losses_and_accuracy(golden_case: Golden) -> None:
    labels, numbers = golden_case.labels, golden_case.numbers
    with torch.no_grad():
        logits, times = golden_case.student(golden_case.features)
    valid = labels.choice != IGNORED
    choice, seconds, count = labels.choice[valid], labels.seconds[valid], int(valid.sum())
    mean, std = golden_case.search["log1p_mean"], golden_case.search["log1p_std"]
    assert isinstance(mean, float)
    assert isinstance(std, float)
    road = road_loss_sum(logits[valid], choice) / count
    time = time_loss_sum(times[valid], choice, seconds, mean, std) / count
    assert float(road) == pytest.approx(float(numbers["out.loss_road"]), abs=1e-5)
    assert float(time) == pytest.approx(float(numbers["out.loss_time_mape_log1p"]), abs=1e-5)
    accuracy = float((logits[valid].argmax(-1) == choice).float().mean())
    assert accuracy == pytest.approx(float(numbers["acc"]), abs=1e-6)


def golden_demand(cases: list[dict[str, Any]]) -> Demand:
    starts = np.array([parse_time(case["start"]) for case in cases])
    ends = (np.array([case[name] for case in cases]) for name in ("origin", "destination"))
    return Demand(*ends, starts, np.arange(len(cases)))


def searched(golden_case: Golden, cases: list[dict[str, Any]], max_expansions: int) -> list[Route]:
    expander = Expander(
        golden_case.student,
        golden_case.network,
        StepTimes(golden_case.search["log1p_mean"], golden_case.search["log1p_std"]),  # type: ignore[arg-type]
        max_steps=1024,
    )
    searches = LockStep(expander, golden_demand(cases), SearchSettings(max_expansions=max_expansions))
    found = {trip.index: trip.route for trip in searches.run(range(len(cases)))}
    return [route for i in range(len(cases)) if (route := found[i])]


def test_best_first_searches(golden_case: Golden) -> None:
    cases: list[dict[str, Any]] = golden_case.search["search"]  # type: ignore[assignment]
    reached = 0
    for most in sorted({case["max_search_step"] for case in cases}):
        some = [case for case in cases if case["max_search_step"] == most]
        for case, route in zip(some, searched(golden_case, some, most), strict=True):
            assert list(route.path.roads) == case["roads"]
            assert format_times(np.asarray(route.path.times)) == case["times"]
            assert route.reached == (case["roads"][-1] == case["destination"])
            reached += route.reached
    assert (len(cases), reached) == (24, 10)


def test_a_checkpoint_of_other_data_is_refused(golden_case: Golden, golden: Path) -> None:
    state = load_file(golden / "hoser_state.safetensors")
    state["road_network_encoder.road_attr_len"] = state["road_network_encoder.road_attr_len"] + 0.1
    with pytest.raises(BadInput, match="road_attr_len differs from what the data gives"):
        restore(state, Config(), golden_case.city, "other.pth")


def test_compiled_names_are_stripped(golden_case: Golden, golden: Path) -> None:
    state = {f"_orig_mod.{name}": value for name, value in load_file(golden / "hoser_state.safetensors").items()}
    student = restore(state, Config(), golden_case.city, "compiled.pth")
    weight = student.navigator.q_proj.weight
    assert torch.equal(weight, golden_case.student.navigator.q_proj.weight)
