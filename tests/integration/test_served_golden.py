"""The original LM-TAD's numbers, from both of its file forms, exported, served and asked over a real gRPC socket."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import load_file

from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.export import export_foreign
from teacher_server.foreign.grid_source import grid_from_file
from teacher_server.rows import ScoreWork
from tests.serving import RunningTeacher, serve
from tests.teacher_server.scoring import log_probs_of, message_of


@pytest.fixture(scope="module", params=["weights_only.pt", "original_checkpoint.pt"])
def teacher(
    request: pytest.FixtureRequest, golden: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningTeacher]:
    folder = tmp_path_factory.mktemp("golden") / "artifact"
    export_foreign(golden / request.param, grid_from_file(golden / "grid.json"), folder)
    # Few tokens at once, so that the answers are put together from many batches.
    with serve(folder, "--batch-tokens", "256", "--http-address", "none") as running:
        yield running


def golden_work(golden: Path, window: int) -> tuple[ScoreWork, np.ndarray]:
    """All 24 trips in one request, and the probabilities that the original gives."""
    road_to_token = np.array(json.loads((golden / "grid.json").read_text())["road_to_token"], np.int32)
    with (golden / "trips.csv").open(newline="") as file:
        trips = [road_to_token[json.loads(f"[{row['rid_list'].strip('[]')}]")] for row in csv.DictReader(file)]
    tensors = load_file(golden / "lmtad_scores.safetensors")
    trip, t = tensors[f"window{window}.positions"].T
    lengths = np.bincount(trip, minlength=len(trips))
    expected_t = np.concatenate([np.arange(length) for length in lengths])
    np.testing.assert_array_equal(t, expected_t)  # every position from the first on, trip after trip
    work = ScoreWork(
        tokens=np.concatenate([tokens[:length] for tokens, length in zip(trips, lengths, strict=True)]),
        lengths=lengths,
        scored=lengths,
        windows=np.full(len(trips), window),
        candidates=tensors[f"window{window}.candidates"].astype(np.int32),
        candidate_counts=tensors[f"window{window}.counts"],
    )
    return work, tensors[f"window{window}.probs"]


@pytest.mark.parametrize("window", [1, 4, 7, 0])
def test_served_probabilities_are_the_originals(teacher: RunningTeacher, golden: Path, window: int) -> None:
    work, expected = golden_work(golden, window)
    with grpc.insecure_channel(teacher.grpc) as channel:
        response = teacher_pb2_grpc.TeacherServiceStub(channel).Score(message_of(work), timeout=60)
    np.testing.assert_allclose(np.exp(log_probs_of(response)), expected, atol=1e-5, rtol=0)
    assert response.truncated == 0
    assert expected.std() > 0.05  # numbers that a wrong context could not meet by chance
