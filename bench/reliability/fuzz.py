"""Random and spoilt requests through all three doors, between right ones: no crash, no wrong answer, right statuses."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np

from bench.reliability.doors import Door, R, Senseless
from bench.reliability.grpc_doors import InferenceDoor, NativeDoor, TripsDoor
from bench.reliability.openapi import ask_all_pages
from bench.reliability.oracle import Oracle, same
from bench.reliability.rest_door import RestDoor
from bench.reliability.scenario import BLOCK, QUIET, Findings, Options, random_work, small_teacher
from teacher_server.rows import ScoreWork
from tests.serving import RunningTeacher, serve

WINDOWS = (0, 1, 3, 7, BLOCK, 1000)
CALLERS = 3  # of each door
# Of all requests; the last one's on top.
SHARES = {"native": 0.35, "native trips": 0.15, "inference": 0.25, "rest": 0.25, "openapi": 0.05}


def run(options: Options, folder: Path) -> Findings:
    small_teacher(folder)
    with serve(folder, env=QUIET) as server:
        return asyncio.run(_fuzz(server, Oracle(folder), options))


async def _fuzz(server: RunningTeacher, oracle: Oracle, options: Options) -> Findings:
    assert server.http
    rng = np.random.default_rng(options.seed)
    works = [random_work(rng, int(rng.integers(1, 4)), 40, WINDOWS[i % len(WINDOWS)]) for i in range(200)]
    found, seen = Findings(), Counter[str]()
    counts = {name: round(options.requests * share) for name, share in SHARES.items()}
    async with (
        grpc.aio.insecure_channel(server.grpc) as channel,
        httpx.AsyncClient(base_url=server.http, timeout=30) as client,
    ):
        doors: list[Door[Any]] = [NativeDoor(channel), TripsDoor(channel), InferenceDoor(channel), RestDoor(client)]
        callers = [
            _call(
                door,
                math.ceil(counts[door.name] / CALLERS),
                works,
                random.Random(f"{options.seed} {door.name} {n}"),
                oracle,
            )
            for door in doors
            for n in range(CALLERS)
        ]
        documented = asyncio.to_thread(ask_all_pages, server.http, counts["openapi"], options.seed)
        for part in await asyncio.gather(documented, *callers):
            seen.update(part.figures)
            found.broken += part.broken
    found.promise(server.process.poll() is None, "the server has ended")
    found.figures = {"requests": seen.total(), "seen": dict(sorted(seen.items()))}
    return found


async def _call(door: Door[R], count: int, works: list[ScoreWork], chance: random.Random, oracle: Oracle) -> Findings:
    found, seen = Findings(), Counter[str]()
    for _ in range(count):
        kind = chance.choice(("right", "spoilt", "spoilt", "spoilt", "random"))
        right = door.request(chance.choice(works), chance)
        match kind:
            case "right":
                request = right
            case "spoilt":
                request = door.spoilt(right, chance)
            case _:
                request = door.random(chance)
        status = await _check(door, kind, request, oracle, found)
        seen[f"{door.name}, {kind}: {status}"] += 1
    found.figures = dict(seen)
    return found


async def _check(door: Door[R], kind: str, request: R, oracle: Oracle, found: Findings) -> str:
    """The status of the answer, which is looked at in every way."""
    answer = await door.ask(request)
    told = f"{door.name}, {kind}: {answer.status} {answer.details[:200]}"
    try:
        expected = door.expected(request, oracle)
    except Exception as error:
        found.promise(answer.status != "OK", f"{told}: an answer to what has none ({type(error).__name__}: {error})")
        if isinstance(error, Senseless):
            found.promise(answer.status == door.senseless, f"{told}: these bytes are no message")
    else:
        right = answer.numbers is None or same(answer.numbers, expected)
        found.promise(right, f"{told}: a wrong answer to {request!r:.300}")
    if answer.status != "OK":
        found.promise(kind != "right" and answer.status in door.refusals, told)
        found.promise("Traceback" not in answer.details, told)
    return answer.status
