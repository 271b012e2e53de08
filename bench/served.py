"""What the service adds to the engine: throughput over loopback, and the time of one small request.

    python -m bench.served

First row: whole trips of San Francisco, 8 x 768, in requests of 32 trips from 8 callers, against the same works
computed by the engine alone, in turn. Second: a small teacher on an idle server, one history a request; what the
caller waits less what the device computes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import torch

from bench.city import City
from bench.engine import REAL
from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.artifact import load_artifact
from teacher_server.engine import BATCH_TOKENS, Engine
from teacher_server.packing import Packer, answer_works
from teacher_server.rows import ScoreWork
from teacher_server.vocabulary import Grid
from tests.serving import serve, tiny_artifact

CALLERS, TRIPS = 8, 32
GRID = Grid(37.0, 37.10245, -122.5, -122.37405, 0.0005, 0.0005, 205, 252)  # 51,660 cells


def message_of(work: ScoreWork, token: str = "<u2") -> pb.ScoreRequest:
    return pb.ScoreRequest(
        tokens=work.tokens.astype(token).tobytes(),
        lengths=work.lengths.astype("<u4").tobytes(),
        scored=work.scored.astype("<u4").tobytes(),
        window=int(work.windows[0]),
        candidates=work.candidates.astype(token).tobytes(),
        candidate_counts=work.candidate_counts.astype("<u2").tobytes(),
    )


def throughput(folder: Path, runs: int, dtype: str, device: str, budget: int) -> dict[str, object]:
    tiny_artifact(
        folder, grid=GRID, block_size=REAL.block_size, n_layer=REAL.n_layer, n_head=REAL.n_head, n_embd=REAL.n_embd,
        scale=0.02,
    )  # fmt: skip
    works = [City().work(caller * TRIPS, TRIPS, 0) for caller in range(CALLERS)]
    positions = sum(len(work.candidate_counts) for work in works)
    artifact = load_artifact(folder)
    engine = Engine(artifact.build(), torch.device(device), getattr(torch, dtype))
    special = artifact.description.special
    packer = Packer(REAL.block_size, special.sot, special.pad, budget)
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    bare, served = [], []
    with (
        serve(folder, "--dtype", dtype, "--device", device, "--batch-tokens", str(budget), env=threads) as server,
        grpc.insecure_channel(server.grpc) as channel,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        messages = [message_of(work) for work in works]

        def rounds(message: pb.ScoreRequest) -> None:
            for _ in range(3):
                stub.Score(message, timeout=300)

        list(callers.map(rounds, messages))
        for _ in range(runs):
            start = time.perf_counter()
            answer_works(works, packer, engine.log_probs)
            bare.append(positions / (time.perf_counter() - start))
            start = time.perf_counter()
            list(callers.map(rounds, messages))
            served.append(3 * positions / (time.perf_counter() - start))
    ratios = [ours / theirs for ours, theirs in zip(served, bare, strict=True)]
    return {
        "row": f"service, {CALLERS} callers of {TRIPS} whole trips, {device}, {dtype}",
        "bare_positions_per_s": round(statistics.median(bare)),
        "served_positions_per_s": round(statistics.median(served)),
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def latency(folder: Path, calls: int, device: str) -> dict[str, object]:
    tiny_artifact(folder, rows=50, columns=50, block_size=64, n_layer=4, n_head=4, n_embd=128, scale=0.02)
    rng = np.random.default_rng(0)
    one = np.ones(1, np.int64)
    work = ScoreWork(
        rng.integers(0, 2500, 8).astype(np.int32), one * 8, one, one * 0, rng.integers(0, 2500, 3).astype(np.int32),
        one * 3,
    )  # fmt: skip
    message, waits, added = message_of(work), [], []
    with serve(folder, "--device", device) as server, grpc.insecure_channel(server.grpc) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        for call in range(calls + 100):
            start = time.perf_counter()
            reply = stub.Score(message, timeout=10)
            wait = time.perf_counter() - start
            if call >= 100:
                waits.append(wait * 1000)
                added.append(wait * 1000 - reply.compute_us / 1000)
            time.sleep(0.002)
    deciles = statistics.quantiles(added, n=10)
    return {
        "row": "one small request on an idle server",
        "median_ms": round(statistics.median(waits), 2),
        "added_median_ms": round(statistics.median(added), 2),
        "added_10_to_90_percent_ms": [round(deciles[0], 2), round(deciles[-1], 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", choices=list(BATCH_TOKENS), default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(latency(Path(folder) / "small", 1000, options.device)), flush=True)
        for dtype in options.dtypes:
            print(
                json.dumps(
                    throughput(Path(folder) / dtype, options.runs, dtype, options.device, BATCH_TOKENS[options.device])
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
