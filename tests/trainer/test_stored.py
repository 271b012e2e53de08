"""Targets from a store against targets that are asked for: the same, rounded to float16, whoever filled the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.exact_teacher import BLOCK, ExactTeacher
from tests.trainer.test_label import filling, random_city
from trainer.clock import Clock
from trainer.data.city import City
from trainer.data.features import Features, Network
from trainer.data.trips import Ints
from trainer.errors import NoAnswer, TeacherUnavailable
from trainer.examples import Example, ExampleMaker
from trainer.losses import kl_sum
from trainer.micro_batches import parts_by_length
from trainer.teacher.stored import StoredTargets
from trainer.teacher.subject import Subject
from trainer.teacher.targets import Target, Targets, TeacherTargets

TRIPS = np.array([3, 0, 7, 11])


@dataclass
class Asked:
    """Hands on to a teacher's targets and keeps what was asked."""

    targets: Targets
    trips: list[list[int]] = field(default_factory=list)

    def of(self, trips: Ints, features: Features) -> Target:
        self.trips.append(trips.tolist())
        return self.targets.of(trips, features)


def example(city: City, targets: Targets, max_len: int = 100, shared_cells: str = "full", top_k: int = 0) -> Example:
    maker = ExampleMaker(Network.of(city.road_map), torch.device("cpu"), max_len, "original", Clock(), shared_cells)
    return maker.make(city.trips["train"], TRIPS, targets=targets, top_k=top_k)


def stored(
    root: Path,
    city: City,
    tokens: np.ndarray,
    window: int,
    max_len: int = 100,
    positions: str = "all",
    ask: bool = True,
) -> tuple[StoredTargets, Asked]:
    subject = Subject(city, "train", max_len, window, ExactTeacher().description)
    asking = Asked(TeacherTargets(ExactTeacher(), tokens, window=window))
    asks = asking if ask else None
    longest = subject.longest_history
    return StoredTargets(subject.open_store(root), asks, tokens, longest_history=longest, positions=positions), asking


class Gone:
    """Answers nothing, and the run may go on without."""

    def of(self, trips: Ints, features: Features) -> Target:
        raise NoAnswer("gone")


@settings(deadline=None, max_examples=50, database=None)
@given(
    seed=st.integers(0, 2**32),
    window=st.sampled_from([0, 1, 4]),
    max_len=st.sampled_from([3, 100]),
    positions=st.sampled_from(["all", "last"]),
    shared_cells=st.sampled_from(["full", "split"]),
    top_k=st.sampled_from([0, 1, 2]),
    labelled=st.booleans(),
)
def test_a_stored_target_is_the_asked_one_rounded(
    seed: int,
    window: int,
    max_len: int,
    positions: str,
    shared_cells: str,
    top_k: int,
    labelled: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whether `trainer label` or the batch itself filled the store; the first time and every later one."""
    root = tmp_path_factory.mktemp("labels")
    city, tokens = random_city(seed)
    if labelled:
        filling(root, city, tokens, window, max_len, ExactTeacher()).run()
    targets, asking = stored(root, city, tokens, window, max_len, positions)
    first = example(city, targets, max_len, shared_cells, top_k)
    again = example(city, targets, max_len, shared_cells, top_k)
    assert asking.trips == ([] if labelled else [TRIPS.tolist()])
    live = TeacherTargets(ExactTeacher(), tokens, window=window, positions=positions)
    direct = example(city, live, max_len, shared_cells, top_k)
    assert first.target is not None
    assert again.target is not None
    assert direct.target is not None
    assert torch.equal(first.target.log_probs, again.target.log_probs)
    assert torch.equal(first.target.asked, direct.target.asked)
    assert first.target.cells is not None
    assert direct.target.cells is not None
    assert torch.equal(first.target.cells, direct.target.cells)
    slots = direct.features.candidate_mask & direct.target.asked[..., None]
    assert first.target.log_probs.dtype == torch.float32
    assert torch.isneginf(first.target.log_probs[~slots]).all()
    assert torch.allclose(first.target.log_probs[slots], direct.target.log_probs[slots], rtol=2e-3, atol=1e-3)
    beyond = [0 if window else max(steps - (BLOCK - 1), 0) for steps in direct.features.steps.tolist()]
    assert first.target.truncated == (sum(beyond) if positions == "all" else sum(map(bool, beyond)))


def test_without_the_rule_and_the_filter_the_values_are_the_rounded_ones_bit_for_bit(tmp_path: Path) -> None:
    city, tokens = random_city(2)
    direct = example(city, TeacherTargets(ExactTeacher(), tokens, window=4)).target
    found = example(city, stored(tmp_path, city, tokens, 4)[0]).target
    assert direct is not None
    assert found is not None
    assert torch.equal(found.log_probs, direct.log_probs.half().float())


def test_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    city, tokens = random_city(8)
    targets, asking = stored(tmp_path, city, tokens, 4)
    maker = ExampleMaker(Network.of(city.road_map), torch.device("cpu"), 100, "original", Clock())
    some = maker.make(city.trips["train"], TRIPS[[1, 3]], targets=targets).target
    everything = example(city, targets).target
    assert asking.trips == [[0, 11], [3, 7]]
    fresh, _ = stored(tmp_path / "other", city, tokens, 4)
    expected = example(city, fresh).target
    assert some is not None
    assert everything is not None
    assert expected is not None
    assert torch.equal(everything.log_probs, expected.log_probs)
    width = some.log_probs.shape[1]
    assert torch.equal(everything.log_probs[[1, 3], :width], some.log_probs)


@settings(deadline=None, max_examples=30, database=None)
@given(
    seed=st.integers(0, 2**32),
    window=st.sampled_from([0, 4]),
    positions=st.sampled_from(["all", "last"]),
    shared_cells=st.sampled_from(["full", "split"]),
    top_k=st.sampled_from([0, 2]),
    kept=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_without_an_answer_what_is_kept_is_used_and_only_the_rest_is_missed(
    seed: int,
    window: int,
    positions: str,
    shared_cells: str,
    top_k: int,
    kept: list[bool],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("labels")
    city, tokens = random_city(seed)
    full, _ = stored(root / "full", city, tokens, window, positions=positions)
    whole = example(city, full, 100, shared_cells, top_k)
    targets, _ = stored(root / "part", city, tokens, window, positions=positions)
    maker = ExampleMaker(Network.of(city.road_map), torch.device("cpu"), 100, "original", Clock())
    if any(kept):
        maker.make(city.trips["train"], TRIPS[kept], targets=targets)
    targets._ask = Gone()  # from now on
    found = example(city, targets, 100, shared_cells, top_k)
    assert found.target is not None
    assert whole.target is not None
    rows = torch.tensor(kept)
    assert torch.equal(found.target.log_probs[rows], whole.target.log_probs[rows])
    assert torch.equal(found.target.asked, whole.target.asked & rows[:, None])
    assert torch.isneginf(found.target.log_probs[~rows]).all()
    assert found.missed == int(whole.target.asked[~rows].sum())
    assert whole.missed == 0
    beyond = [0 if window else max(steps - (BLOCK - 1), 0) for steps in whole.features.steps[rows].tolist()]
    assert found.target.truncated == (sum(beyond) if positions == "all" else sum(map(bool, beyond)))
    parts = parts_by_length(found, 1)
    assert sum(part.missed for part in parts) == found.missed
    assert sum(part.target.missed for part in parts if part.target) == found.missed
    assert sum(int(part.target.asked.sum()) for part in parts if part.target) == int(found.target.asked.sum())


def test_a_store_without_a_teacher_must_have_everything(tmp_path: Path) -> None:
    city, tokens = random_city(9)
    targets, _ = stored(tmp_path, city, tokens, 4, ask=False)
    with pytest.raises(TeacherUnavailable, match=r"lacks labels of 4 of a batch's 4 trips.*run `trainer label` first"):
        example(city, targets)
    filling(tmp_path, city, tokens, 4, 100, ExactTeacher()).run()
    assert example(city, targets).target is not None  # what another process wrote is seen at once


def test_one_store_serves_every_temperature_and_weight(tmp_path: Path) -> None:
    """The KL of stored labels at any temperature is that of asked ones; nothing in the key knows either."""
    city, tokens = random_city(10)
    direct = example(city, TeacherTargets(ExactTeacher(), tokens, window=4))
    found = example(city, stored(tmp_path, city, tokens, 4)[0])
    assert direct.target is not None
    assert found.target is not None
    asked = direct.target.asked
    logits = torch.randn(direct.target.log_probs.shape, generator=torch.Generator().manual_seed(0))
    logits = logits.masked_fill(~direct.features.candidate_mask, -torch.inf)[asked]
    for temperature in (0.5, 1.0, 2.8, 4.37):
        kl = [kl_sum(target.log_probs[asked], logits, temperature) for target in (direct.target, found.target)]
        assert kl[0] > 0.1
        assert torch.isclose(kl[0], kl[1], rtol=5e-3)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_step_without_a_finite_answer_reaches_the_loss_as_such(tmp_path: Path) -> None:
    city, tokens = random_city(5)
    store = Subject(city, "train", 100, 0, ExactTeacher().description).open_store(tmp_path)
    broken = ExactTeacher(broken=2)
    ask = TeacherTargets(broken, tokens)
    found = example(city, StoredTargets(store, ask, tokens, longest_history=BLOCK - 1)).target
    direct = example(city, ask).target
    assert found is not None
    assert direct is not None
    assert torch.equal(torch.isnan(found.log_probs), torch.isnan(direct.log_probs))
    assert torch.isnan(found.log_probs).any()
