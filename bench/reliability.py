"""Real servers under fuzz, overload and a long run; results with their date belong into docs/reliability.md.

    python -m bench.reliability fuzz --requests 100000
    python -m bench.reliability overload --seconds 120
    python -m bench.reliability soak --seconds 600

Each command is bounded in time, ends its server, prints one JSON object and exits with 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch

from bench.served import message_of
from teacher_server.artifact import load_artifact
from teacher_server.engine import Engine
from teacher_server.packing import Packer, ScoreWork, answer_works
from tests.serving import RunningTeacher, serve, tiny_artifact

ROWS = COLUMNS = 20
CELLS = ROWS * COLUMNS
BLOCK = 32
SCORE = "/teacher.v1.TeacherService/Score"
INFER = "/inference.GRPCInferenceService/ModelInfer"
EXPECTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


def random_work(rng: np.random.Generator, trips: int, steps: int, window: int) -> ScoreWork:
    lengths = rng.integers(1, steps + 1, trips)
    scored = np.array([rng.integers(1, length + 1) for length in lengths])
    counts = rng.integers(0, 6, int(scored.sum()))
    return ScoreWork(
        rng.integers(0, CELLS, int(lengths.sum())).astype(np.int32), lengths, scored, np.full(trips, window),
        rng.integers(0, CELLS, int(counts.sum())).astype(np.int32), counts,
    )  # fmt: skip


def usage(server: RunningTeacher) -> dict[str, int]:
    """The server process's resident memory (MiB), open descriptors and threads."""
    proc = Path(f"/proc/{server.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) // 1024,
        "descriptors": len(list((proc / "fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def percentile(values: list[float], share: float) -> float:
    return round(float(np.percentile(values, share * 100)) * 1000, 1) if values else 0.0


async def fuzz(server: RunningTeacher, folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Random and mutated bytes on both gRPC services, between right requests whose answers are checked."""
    artifact = load_artifact(folder)
    engine = Engine(artifact.build(), torch.device("cpu"), torch.float32)
    special = artifact.description.special
    packer = Packer(BLOCK, special.sot, special.pad, 100_000)
    numbers = np.random.default_rng(options.seed)
    windows = (0, 1, 3, 7, BLOCK, 1000)
    works = [random_work(numbers, int(numbers.integers(1, 6)), 60, windows[i % len(windows)]) for i in range(200)]
    answers = answer_works(works, packer, engine.log_probs)
    messages = [message_of(work).SerializeToString() for work in works]
    chance = random.Random(options.seed)
    seen: Counter[str] = Counter()
    broken: list[str] = []

    def mutated(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            place = chance.randrange(len(changed) + 1)
            match chance.randrange(4):
                case 0 if changed:
                    changed[place % len(changed)] = chance.randrange(256)
                case 1:
                    changed[place:place] = chance.randbytes(chance.randint(1, 9))
                case 2:
                    del changed[place : place + chance.randint(1, 40)]
                case _:
                    changed += changed[place : place + 30]
        return bytes(changed)

    async def caller(count: int, score: Any, infer: Any) -> None:
        for _ in range(count):
            which = chance.randrange(len(works))
            kind = chance.choice(("right", "mutated", "mutated", "mutated", "random", "oip"))
            data = {
                "right": messages[which],
                "mutated": mutated(messages[which]),
                "random": chance.randbytes(chance.randint(0, 200)),
                "oip": mutated(b"\x0a\x07teacher" + messages[which][:200]),
            }[kind]
            try:
                reply = await (infer if kind == "oip" else score)(data, timeout=30)
            except grpc.aio.AioRpcError as error:
                seen[f"{kind} {error.code().name}"] += 1
                if kind == "right" or error.code() not in EXPECTED or "Traceback" in (error.details() or ""):
                    broken.append(f"{kind}: {error.code().name}: {error.details()}")
            else:
                seen[f"{kind} OK"] += 1
                if kind == "right":
                    from protos.teacher.v1 import teacher_pb2 as pb

                    found = np.frombuffer(pb.ScoreResponse.FromString(reply).log_probs, "<f4")
                    if not np.allclose(found, answers[which], atol=1e-5, rtol=2e-6):
                        broken.append(f"right: wrong answer to work {which}")

    async with grpc.aio.insecure_channel(server.grpc) as channel:
        score, infer = channel.unary_unary(SCORE), channel.unary_unary(INFER)
        await asyncio.gather(*(caller(options.requests // 8, score, infer) for _ in range(8)))
    return {"requests": sum(seen.values()), "seen": dict(sorted(seen.items()))}, broken


async def overload(
    server: RunningTeacher, folder: Path, options: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """First what the server can do, with 8 callers; then ten times that rate, whoever is still waiting."""
    rng = np.random.default_rng(options.seed)
    messages = [message_of(random_work(rng, 8, 60, 7)).SerializeToString() for _ in range(20)]
    admitted: list[float] = []
    refused: list[float] = []
    others: Counter[str] = Counter()

    async def call(score: Any, number: int) -> None:
        start = time.perf_counter()
        try:
            await score(messages[number % len(messages)], timeout=60)
            admitted.append(time.perf_counter() - start)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                refused.append(time.perf_counter() - start)
            else:
                others[error.code().name] += 1

    async with grpc.aio.insecure_channel(server.grpc) as channel:
        score = channel.unary_unary(SCORE)
        end = time.perf_counter() + 10

        async def loop(number: int) -> None:
            while time.perf_counter() < end:
                await call(score, number)

        await asyncio.gather(*(loop(number) for number in range(8)))
        capacity = len(admitted) / 10
        admitted.clear()
        early: dict[str, int] = {}
        start, sent, calls = time.perf_counter(), 0, set()
        while (now := time.perf_counter() - start) < options.seconds:
            if not early and now > options.seconds / 4:  # the queue and the batches have their full size by now
                early = usage(server)
            while sent < now * capacity * 10:
                task = asyncio.create_task(call(score, sent))
                calls.add(task)
                task.add_done_callback(calls.discard)
                sent += 1
            await asyncio.sleep(0.005)
        await asyncio.gather(*calls)
        late = usage(server)
    found = {
        "capacity_per_s": capacity, "sent": sent, "admitted": len(admitted), "refused": len(refused),
        "others": dict(others), "admitted_p50_p99_ms": [percentile(admitted, 0.5), percentile(admitted, 0.99)],
        "refused_p50_p99_ms": [percentile(refused, 0.5), percentile(refused, 0.99)],
        "after_a_quarter": early, "at_the_end": late,
    }  # fmt: skip
    broken = [f"{count} calls ended with {name}" for name, count in others.items()]
    if late["rss_mib"] > early["rss_mib"] + 50:
        broken.append(f"memory grew from {early['rss_mib']} to {late['rss_mib']} MiB")
    if not refused or percentile(refused, 0.5) > 50:
        broken.append(f"half of the refusals took longer than {percentile(refused, 0.5)} ms")
    return found, broken


async def soak(server: RunningTeacher, folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Mixed callers for a while: small and large requests, deadlines of a millisecond, callers that go away."""
    rng = np.random.default_rng(options.seed)
    works = [random_work(rng, trips, 60, window) for trips in (1, 5, 100) for window in (0, 4, 7)]
    messages = [message_of(work).SerializeToString() for work in works]
    outcomes: Counter[str] = Counter()
    end = time.perf_counter() + options.seconds
    samples: list[dict[str, int]] = []

    async def caller(number: int) -> None:
        while time.perf_counter() < end:
            async with grpc.aio.insecure_channel(server.grpc) as channel:  # connections come and go, too
                score = channel.unary_unary(SCORE)
                for turn in range(200):
                    pending = score(messages[(number + turn) % len(messages)], timeout=0.001 if turn % 10 == 9 else 30)
                    if turn % 10 == 4:
                        pending.cancel()
                    try:
                        await pending
                        outcomes["OK"] += 1
                    except grpc.aio.AioRpcError as error:
                        outcomes[error.code().name] += 1
                    except asyncio.CancelledError:
                        outcomes["cancelled"] += 1

    async def sampler() -> None:
        while time.perf_counter() < end:
            samples.append(usage(server))
            await asyncio.sleep(options.seconds / 20)

    await asyncio.gather(sampler(), *(caller(number) for number in range(6)))
    await asyncio.sleep(1)
    third = max(len(samples) // 3, 1)
    early, late = samples[1 : third + 1], samples[-third:]
    medians = {key: [statistics.median(s[key] for s in part) for part in (early, late)] for key in samples[0]}
    allowed = {"rss_mib": 30, "descriptors": 10, "threads": 2}
    broken = [f"{key} grew from {a} to {b}" for key, (a, b) in medians.items() if b > a + allowed[key]]
    broken += [f"{outcomes[name]} calls: {name}" for name in ("INTERNAL", "UNKNOWN", "UNAVAILABLE") if outcomes[name]]
    return {"outcomes": dict(outcomes), "first_and_last_third": medians}, broken


Scenario = Callable[[RunningTeacher, Path, argparse.Namespace], Coroutine[Any, Any, tuple[dict[str, Any], list[str]]]]
SCENARIOS: dict[str, Scenario] = {"fuzz": fuzz, "overload": overload, "soak": soak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=list(SCENARIOS))
    parser.add_argument("--requests", type=int, default=100_000, help="of fuzz")
    parser.add_argument("--seconds", type=float, default=120.0, help="of overload and soak")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    large = options.scenario == "overload"
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "teacher"
        tiny_artifact(
            folder, rows=ROWS, columns=COLUMNS, block_size=BLOCK, scale=0.1,
            n_embd=256 if large else 32, n_layer=4 if large else 2,
        )  # fmt: skip
        flags = ["--queue-tokens", "30000"] if large else []
        begun = time.perf_counter()
        with serve(folder, *flags) as server:
            found, broken = asyncio.run(SCENARIOS[options.scenario](server, folder, options))
    print(json.dumps({"scenario": options.scenario, "seconds": round(time.perf_counter() - begun), **found}, indent=1))
    for line in broken[:20]:
        print(f"broken: {line}", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
