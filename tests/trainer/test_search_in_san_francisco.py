"""The searches in lock step against the plain ones with a trained student: 200 real pairs of ends, trip by trip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.plain_search import Walker
from tests.trainer.datasets import trainer
from tests.trainer.test_search import plain_routes, routes_of
from trainer.assemble import load_trained
from trainer.data.features import Network
from trainer.data.prepare import prepare
from trainer.generate.demand import Demand, draw_demand
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.search import SearchSettings
from trainer.run_folder import RunFolder

PAIRS = 200
SMALL = {
    "road_network_encoder_config.road_id_emb_dim": 16,
    **{f"road_network_encoder_config.{name}_emb_dim": 4 for name in ("len", "type", "lon", "lat")},
    "road_network_encoder_config.zone_id_emb_dim": 32,
    "trajectory_encoder_config.hidden_dim": 32,
    "navigator_config.hidden_dim": 32,
    "optimizer_config.max_epoch": 1,
    "optimizer_config.learning_rate": 0.01,
}

Ways = tuple[Walker, Expander, Demand]


@pytest.fixture(scope="module")
def ways(core_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """The same small student, plain and fast, and the ends and start times of test trips."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of such a small student's work a second one only waits
    root = tmp_path_factory.mktemp("core")
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    where = ("--data", core_data, "--cache", root / "cache", "--out", root / "run")
    done = trainer("train", *where, "--teacher", "none", *settings)
    assert done.status == 0, done.err
    city = prepare(core_data, root / "cache").city
    student, config, card = load_trained(RunFolder(root / "run").best, city)
    network, longest = Network.of(city.road_map), config.trajectory_encoder_config.max_len
    walker = Walker(student, network, log1p_mean=card.log1p_mean, log1p_std=card.log1p_std, max_steps=longest)
    fast = Expander(student, network, StepTimes(card.log1p_mean, card.log1p_std), max_steps=longest)
    yield walker, fast, draw_demand(city.trips["test"], PAIRS, 0)
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("best-first", 20), ("beam", 32), ("greedy", 10), ("sample", 10)])
def test_routes_and_times_are_the_plain_ones(ways: Ways, kind: str, most: int) -> None:
    walker, fast, demand = ways
    how = SearchSettings(kind, most)
    ours, plain = routes_of(fast, demand, how), plain_routes(walker, demand, how)
    for trip, (a, b) in enumerate(zip(ours, plain, strict=True)):
        assert (a.path.roads, a.path.times) == (b.path.roads, b.path.times), trip
        assert (a.reached, a.expansions) == (b.reached, b.expansions), trip
    assert 0 < sum(route.reached for route in ours) < PAIRS
