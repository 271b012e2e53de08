"""Mixed callers for a while: small and large requests, deadlines of a millisecond, callers that go away."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.reliability.scenario import QUIET, Findings, Options, Usage, random_work, small_teacher
from bench.served import message_of
from tests.serving import RunningTeacher, serve

SCORE = "/teacher.v1.TeacherService/Score"
CALLERS = 6
ALLOWED = {"rss_mib": 30, "descriptors": 10, "threads": 8}  # between the first and the last third


def run(options: Options, folder: Path) -> Findings:
    small_teacher(folder)
    with serve(folder, env=QUIET) as server:
        return asyncio.run(_soak(server, options))


async def _soak(server: RunningTeacher, options: Options) -> Findings:
    rng = np.random.default_rng(options.seed)
    works = [random_work(rng, trips, 60, window) for trips in (1, 5, 100) for window in (0, 4, 7)]
    messages = [message_of(work).SerializeToString() for work in works]
    outcomes: Counter[str] = Counter()
    samples: list[Usage] = []
    end = time.perf_counter() + options.seconds

    async def caller(number: int) -> None:
        while time.perf_counter() < end:
            async with grpc.aio.insecure_channel(server.grpc) as channel:  # connections come and go, too
                await _calls(channel.unary_unary(SCORE), messages[number:] + messages[:number], outcomes)

    async def sampler() -> None:
        while time.perf_counter() < end:
            samples.append(Usage.of(server))
            await asyncio.sleep(options.seconds / 20)

    await asyncio.gather(sampler(), *(caller(number) for number in range(CALLERS)))
    return _judged(outcomes, samples)


async def _calls(score: Any, messages: Sequence[bytes], outcomes: Counter[str]) -> None:
    for turn in range(200):
        pending = score(messages[turn % len(messages)], timeout=0.001 if turn % 10 == 9 else 30)
        if turn % 10 == 4:
            pending.cancel()
        try:
            await pending
            outcomes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            outcomes[error.code().name] += 1
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1


def _judged(outcomes: Counter[str], samples: Sequence[Usage]) -> Findings:
    third = max(len(samples) // 3, 1)
    parts = [[asdict(each) for each in part] for part in (samples[1 : third + 1], samples[-third:])]
    medians = {name: [statistics.median(each[name] for each in part) for part in parts] for name in ALLOWED}
    found = Findings({"outcomes": dict(outcomes), "first_and_last_third": medians})
    for name, (early, late) in medians.items():
        found.promise(late <= early + ALLOWED[name], f"{name} grew from {early} to {late}")
    for name in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"):
        found.promise(not outcomes[name], f"{outcomes[name]} calls ended with {name}")
    return found
