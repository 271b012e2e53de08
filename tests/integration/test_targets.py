"""What the trainer gets over the wire against the teacher's own logits, computed the slow way."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch

from teacher_server.artifact import load_artifact
from tests.integration.line import Line
from tests.serving import RunningTeacher, serve, tiny_artifact
from trainer.clock import Clock
from trainer.config_file import load_config
from trainer.data.features import Network
from trainer.errors import TeacherMismatch, TeacherUnavailable
from trainer.examples import ExampleMaker
from trainer.guide import token_map
from trainer.teacher.address import connect
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.targets import Target, TeacherTargets


def slow_target(line: Line, trip: int, step: int, window: int, road_to_token: np.ndarray) -> dict[int, float]:
    """Log-probability of each candidate road after one history, by a softmax over the full vocabulary."""
    artifact = load_artifact(line.teacher)
    model, special = artifact.build().double(), artifact.description.special
    roads = line.city.trips["train"].roads_of(trip)
    history = [int(road_to_token[road]) for road in roads[: step + 1]]
    room = artifact.description.model.block_size - 1
    history = history[-(window or room) :][-room:]
    with torch.no_grad():
        hidden = model(torch.tensor([[special.sot, *history]]))
        log_probs = model.logits(hidden)[0, -1].log_softmax(-1)
    table, counts = line.city.road_map.successor_table()
    candidates = table[roads[step], : counts[roads[step]]]
    chosen = torch.stack([log_probs[int(road_to_token[road])] for road in candidates]).log_softmax(-1)
    return dict(zip(candidates.tolist(), chosen.tolist(), strict=True))


def reach(targets: str, **patience: float) -> Pool:
    pool = connect(f"grpc://{targets}", Patience(**patience))  # type: ignore[arg-type]
    assert pool is not None
    return pool


def ask(
    line: Line,
    served: RunningTeacher,
    trips: list[int],
    window: int,
    positions: str = "all",
    shared_cells: str = "full",
) -> tuple[Target, np.ndarray]:
    with reach(served.grpc) as teacher:
        tokens = token_map(teacher.description, load_config(None), line.city)
        targets = TeacherTargets(teacher, tokens.road_to_token, window=window, positions=positions)
        network = Network.of(line.city.road_map)
        maker = ExampleMaker(network, torch.device("cpu"), 1024, "original", Clock(), shared_cells)
        made = maker.make(line.city.trips["train"], np.array(trips), targets=targets)
    assert made.target is not None
    return made.target, tokens.road_to_token


@pytest.mark.parametrize("window", [0, 1, 3, 7])
def test_targets_equal_the_full_softmax(line: Line, served: RunningTeacher, window: int) -> None:
    trips = [0, 7, 3]
    target, tokens = ask(line, served, trips, window)
    table, _ = line.city.road_map.successor_table()
    for row, trip in enumerate(trips):
        roads = line.city.trips["train"].roads_of(trip)
        for step in (0, 1, len(roads) // 2, len(roads) - 2):
            for road, expected in slow_target(line, trip, step, window, tokens).items():
                slot = table[roads[step]].tolist().index(road)
                assert float(target.log_probs[row, step, slot]) == pytest.approx(expected, abs=1e-5)


def test_last_positions_ask_about_the_last_step_only(line: Line, served: RunningTeacher) -> None:
    everything, _ = ask(line, served, [0, 1, 2], 0)
    last, _ = ask(line, served, [0, 1, 2], 0, positions="last")
    assert int(last.asked.sum()) == 3
    for row in range(3):
        step = int(last.asked[row].nonzero()[0, 0])
        assert step == int(everything.asked[row].nonzero()[-1, 0])
        both = torch.isfinite(everything.log_probs[row, step])
        assert torch.allclose(last.log_probs[row, step][both], everything.log_probs[row, step][both], atol=1e-5)


def test_split_cells_share_their_mass(line: Line, served: RunningTeacher) -> None:
    trips = list(range(40))
    full, _ = ask(line, served, trips, 0)
    split, _ = ask(line, served, trips, 0, shared_cells="split")
    slots = torch.isfinite(full.log_probs)
    assert torch.equal(full.tied(slots), split.tied(slots))
    assert full.tied(slots).any()
    differing = (full.log_probs != split.log_probs) & torch.isfinite(full.log_probs)
    assert differing.any()
    assert torch.allclose(split.log_probs.exp().sum(-1)[split.asked], torch.ones(()), atol=1e-5)


def test_a_query_larger_than_the_limits_is_cut_and_joined(line: Line, served: RunningTeacher) -> None:
    whole, _ = ask(line, served, list(range(30)), 0)
    with serve(line.teacher, "--max-sequences", "4", "--max-positions", "70") as small:
        parts, _ = ask(line, small, list(range(30)), 0)
    assert torch.allclose(whole.log_probs.exp(), parts.log_probs.exp(), atol=1e-6)


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        unused_tcp_port = int(probe.getsockname()[1])
    with pytest.raises(TeacherUnavailable, match=f"no teacher answers at 127.0.0.1:{unused_tcp_port}"):
        reach(f"127.0.0.1:{unused_tcp_port}", connect_s=1)


def test_endpoints_with_different_teachers(
    line: Line, served: RunningTeacher, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "teacher"
    tiny_artifact(other, seed=9)
    with serve(other) as second, pytest.raises(TeacherMismatch) as raised:
        reach(f"{served.grpc},{second.grpc}")
    assert served.digest[:16] in str(raised.value)
    assert second.digest[:16] in str(raised.value)


def test_an_endpoint_that_dies_is_passed_over(line: Line, served: RunningTeacher) -> None:
    with serve(line.teacher) as second, reach(f"{served.grpc},{second.grpc}", deadline_s=20) as teacher:
        tokens = token_map(teacher.description, load_config(None), line.city)
        targets = TeacherTargets(teacher, tokens.road_to_token)
        maker = ExampleMaker(Network.of(line.city.road_map), torch.device("cpu"), 1024, "original", Clock())
        first = maker.make(line.city.trips["train"], np.arange(3), targets=targets).target
        second.process.kill()
        second.process.wait()
        for _ in range(3):
            again = maker.make(line.city.trips["train"], np.arange(3), targets=targets).target
            assert first is not None
            assert again is not None
            assert torch.equal(first.log_probs, again.log_probs)
