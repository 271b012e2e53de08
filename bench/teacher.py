"""The teacher: calls that carry many histories against calls of one, and packed scoring against one row at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

from bench.compare import Comparison, Way, compare
from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.engine import Engine
from teacher_server.model import LMTAD, ModelConfig
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import ScoreWork
from tests.serving import serve, tiny_artifact

CANDIDATES = 3  # a position
HISTORIES, TOKENS, CALL = 512, 8, 128
TRIPS, STEPS = 16, 40
CELLS, BUDGET = 2_000, 8_192
TEACHER = ModelConfig(block_size=64, vocab_size=CELLS + 3, n_layer=4, n_head=4, n_embd=128)


def measure_calls(runs: int) -> Comparison:
    """Rows a second over loopback gRPC, one call after the other, with a teacher so small that calls dominate."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        tiny_artifact(Path(folder) / "teacher", rows=20, columns=25)
        tokens = rng.integers(0, 500, (HISTORIES, TOKENS)).astype("<u2")
        candidates = rng.integers(0, 500, (HISTORIES, CANDIDATES)).astype("<u2")
        with serve(Path(folder) / "teacher") as server, grpc.insecure_channel(server.grpc) as channel:
            stub = teacher_pb2_grpc.TeacherServiceStub(channel)

            def way(size: int) -> Way:
                starts = range(0, HISTORIES, size)
                requests = [_request(tokens[i : i + size], candidates[i : i + size]) for i in starts]
                return lambda: np.concatenate([np.frombuffer(stub.Score(r).log_probs, "<f4") for r in requests])

            return compare(
                f"Score over gRPC: {CALL} histories a call, against 1",
                HISTORIES,
                "rows",
                plain=way(1),
                ours=way(CALL),
                runs=runs,
            )


def _request(tokens: NDArray[np.uint16], candidates: NDArray[np.uint16]) -> pb.ScoreRequest:
    ones = np.ones(len(tokens), "<u4")
    return pb.ScoreRequest(
        tokens=tokens.tobytes(),
        lengths=(ones * TOKENS).tobytes(),
        scored=ones.tobytes(),
        candidates=candidates.tobytes(),
        candidate_counts=np.full(len(tokens), CANDIDATES, "<u2").tobytes(),
        reply_type=pb.FLOAT_TYPE_FLOAT32,
    )


def measure_packing(window: int, runs: int) -> Comparison:
    """All steps of some trips under a window (0: whole prefix), without a network between."""
    torch.manual_seed(0)
    model = LMTAD(TEACHER)
    model.initialise(torch.Generator().manual_seed(0))
    engine = Engine(model, torch.device("cpu"), torch.float32)
    packer = Packer(TEACHER.block_size, sot=CELLS + 2, pad=CELLS, token_budget=BUDGET)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, CELLS, (TRIPS, STEPS)).astype(np.int32)
    candidates = rng.integers(0, CELLS, (TRIPS, STEPS, CANDIDATES)).astype(np.int32)
    whole = _work(tokens, candidates, window)
    single = [
        _work(tokens[trip : trip + 1, : step + 1], candidates[trip : trip + 1, step : step + 1], window)
        for trip in range(TRIPS)
        for step in range(STEPS)
    ]
    return compare(
        f"teacher, window {window or 'full'}: packed rows, against one row a position alone",
        TRIPS * STEPS,
        "positions",
        plain=lambda: np.concatenate([_score(engine, packer, [work]) for work in single]),
        ours=lambda: _score(engine, packer, [whole]),
        runs=runs,
    )


def _work(tokens: NDArray[np.int32], candidates: NDArray[np.int32], window: int) -> ScoreWork:
    trips, steps = tokens.shape
    scored = candidates.shape[1]
    return ScoreWork(
        tokens=tokens.reshape(-1),
        lengths=np.full(trips, steps),
        scored=np.full(trips, scored),
        windows=np.full(trips, window),
        candidates=candidates.reshape(-1),
        candidate_counts=np.full(trips * scored, CANDIDATES),
    )


def _score(engine: Engine, packer: Packer, works: Sequence[ScoreWork]) -> NDArray[np.float32]:
    return np.concatenate(answer_works(works, packer, engine.log_probs))
