"""What the server can do, with 8 callers; then ten times that rate, whoever is still waiting."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.reliability.scenario import (
    BLOCK,
    COLUMNS,
    QUIET,
    ROWS,
    Findings,
    Options,
    Usage,
    percentiles_ms,
    random_work,
)
from bench.served import message_of
from teacher_server.engine import BATCH_TOKENS
from teacher_server.rows import count_row_tokens
from tests.serving import RunningTeacher, serve, tiny_artifact

SCORE = "/teacher.v1.TeacherService/Score"
CALLERS = 8
MEASURED_SECONDS = 10.0
TIMES = 10
QUEUE_TOKENS = 30_000
REFUSED_WITHIN = 0.05  # seconds


@dataclass
class Answers:
    """What became of calls; seconds each."""

    admitted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    async def call(self, score: Any, message: bytes) -> None:
        start = time.perf_counter()
        try:
            await score(message, timeout=60)
            self.admitted.append(time.perf_counter() - start)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.refused.append(time.perf_counter() - start)
            else:
                self.others[error.code().name] += 1


def run(options: Options, folder: Path) -> Findings:
    tiny_artifact(folder, rows=ROWS, columns=COLUMNS, block_size=BLOCK, scale=0.1, n_embd=256, n_layer=4)
    with serve(folder, "--queue-tokens", str(QUEUE_TOKENS), env=QUIET) as server:
        return asyncio.run(_overload(server, options))


async def _overload(server: RunningTeacher, options: Options) -> Findings:
    rng = np.random.default_rng(options.seed)
    works = [random_work(rng, 8, 60, 7) for _ in range(20)]
    messages = [message_of(work).SerializeToString() for work in works]
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        score = channel.unary_unary(SCORE)
        capacity = await _capacity(score, messages)
        answers = Answers()
        early = await _flood(server, score, messages, capacity * TIMES, options.seconds, answers)
    late = Usage.of(server)
    tokens_per_s = capacity * float(np.mean([count_row_tokens(work, BLOCK) for work in works]))
    full = (QUEUE_TOKENS + 2 * BATCH_TOKENS["cpu"]) / tokens_per_s  # one batch computes, and one is packed
    over = sum(seconds > REFUSED_WITHIN for seconds in answers.refused)
    found = Findings(
        {
            "capacity_per_s": capacity,
            "a_full_server_s": round(full, 1),
            "admitted": len(answers.admitted),
            "refused": len(answers.refused),
            "others": dict(answers.others),
            "admitted_ms": percentiles_ms(answers.admitted),
            "refused_ms": percentiles_ms(answers.refused),
            "refused_after_50_ms": over,
            "after_a_quarter": asdict(early),
            "at_the_end": asdict(late),
        }
    )
    for name, count in answers.others.items():
        found.promise(False, f"{count} calls ended with {name}")
    found.promise(late.rss_mib <= early.rss_mib + 50, f"memory grew from {early.rss_mib} to {late.rss_mib} MiB")
    found.promise(0 < len(answers.refused) >= 100 * over, f"{over} of {len(answers.refused)} refusals took over 50 ms")
    slowest = found.figures["admitted_ms"].get("p99", float("inf")) / 1000
    # A request that is cut because a batch is full waits a second time, behind the others.
    found.promise(slowest < 2 * full, f"answers take {slowest:.1f} s, and all that a full server holds {full:.1f} s")
    return found


async def _capacity(score: Any, messages: list[bytes]) -> float:
    """Calls a second that some callers get through who each wait for their answer."""
    answers, end = Answers(), time.perf_counter() + MEASURED_SECONDS

    async def caller(number: int) -> None:
        while time.perf_counter() < end:
            await answers.call(score, messages[number % len(messages)])

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return len(answers.admitted) / MEASURED_SECONDS


async def _flood(
    server: RunningTeacher, score: Any, messages: list[bytes], per_second: float, seconds: float, answers: Answers
) -> Usage:
    """Calls at that rate. Returns what the server holds after a quarter: queue and batches have their full size."""
    early: Usage | None = None
    start, sent, calls = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (now := time.perf_counter() - start) < seconds:
        if early is None and now > seconds / 4:
            early = Usage.of(server)
        while sent < now * per_second:
            task = asyncio.create_task(answers.call(score, messages[sent % len(messages)]))
            calls.add(task)
            task.add_done_callback(calls.discard)
            sent += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*calls)
    return early or Usage.of(server)
