"""Right callers beside bad ones, and a server that is stopped and killed: whose answers are right and on time?"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.reliability.callers import Callers, Calls, Question
from bench.reliability.nuisances import Nuisances
from bench.reliability.oracle import Oracle
from bench.reliability.scenario import QUIET, Findings, Options, Usage, small_teacher
from tests.certificates import Authority, PemFiles
from tests.serving import RunningTeacher, serve, start, wait_until_ready

DEADLINE = 2.0  # seconds that a right caller waits
LATE = 0.3  # seconds after its deadline, or after the server's death, within which a caller must have been told
STOPPED_SECONDS = 5.0
BACK_SECONDS = 5.0  # within which everybody is answered again by a server that goes on, or that is ready
CROWDS = 4  # short ones at most, before the one that is measured
SETTLING_SECONDS = 30.0  # a keepalive, its ping and a handshake may be under way
TIMEOUTS = ["--http-timeout", "3", "--keepalive", "2"]  # short ones, to see them
# Than after the short crowds, which need not have filled the pools of threads of asyncio (6 on two cores) and of gRPC;
# a thread lost with each bad connection would be dozens.
MORE = Usage(rss_mib=60, descriptors=4, threads=8)
# Whom the server must have cut off within CUT_OFF_SECONDS (gRPC's own handshakes and pings have 10). The others vanish
# by themselves, or have the 60 seconds of a TLS handshake on the HTTP port.
CUT_OFF = (
    "silent_grpc", "half_hello_grpc", "slow_header", "slow_body", "slow_reader", "never_reading_http",
    "never_reading_grpc",
)  # fmt: skip
CUT_OFF_SECONDS = 16.0


def run(options: Options, folder: Path) -> Findings:
    small_teacher(folder)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that connections are cut off is nothing to warn of here
    files = Authority().issue(folder.parent / "tls")
    flags = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key), *TIMEOUTS]
    with serve(folder, *flags, env=QUIET) as server:
        return asyncio.run(_mishaps(server, folder, flags, files, options))


async def _mishaps(
    server: RunningTeacher, folder: Path, flags: list[str], files: PemFiles, options: Options
) -> Findings:
    assert server.http
    rng, oracle, found = np.random.default_rng(options.seed), Oracle(folder), Findings()
    questions = [Question.at_random(rng, oracle) for _ in range(20)]
    https = server.http.replace("http:", "https:")
    async with Callers(server.grpc, https, files, questions, DEADLINE).at_work() as calls:
        await _crowd(server, https, files, calls, options.seconds, found)
        await _stopped(server, calls, found)
        server.process.send_signal(signal.SIGKILL)
        await _killed(calls, found)
        async with _again(server, folder, flags):
            await _back(calls, "after_a_new_server", found)
    return found


async def _crowd(
    server: RunningTeacher, https: str, files: PemFiles, calls: Calls, seconds: float, found: Findings
) -> None:
    """Bad callers of all kinds for `seconds`, and before them nobody else for a quarter of that."""
    nuisances = Nuisances(_address(server.grpc), _address(https.removeprefix("https://")), files.ca)
    await _grown(server, nuisances, seconds / 4)
    begun = time.perf_counter()
    await asyncio.sleep(seconds / 4)
    calm, before = calls.since(begun), Usage.of(server)
    begun = time.perf_counter()
    async with nuisances.about(times=3):
        await asyncio.sleep(seconds)
        crowded, during = calls.since(begun), Usage.of(server)
    after = await _settled(server, before)
    found.figures |= {
        "calm": {"calls": calm.statuses(), "answered_ms": calm.answered_ms()},
        "crowded": {"calls": crowded.statuses(), "answered_ms": crowded.answered_ms()},
        "bad_callers": dict(nuisances.started),
        "cut_off": dict(nuisances.cut_off),
        "deadlines_of_1_ms": dict(nuisances.hurried),
        "usage": {"before": asdict(before), "crowded": asdict(during), "after": asdict(after)},
        "cancelled": await _cancelled(https, files),
    }
    found.promise(set(calm.statuses()) | set(crowded.statuses()) == {"OK"}, "right callers were not answered rightly")
    found.promise(set(nuisances.hurried) == {"DEADLINE_EXCEEDED"}, f"deadlines of 1 ms: {dict(nuisances.hurried)}")
    found.promise(_level(after, before), f"the server does not get back to its level: {before} became {after}")
    found.promise(found.figures["cancelled"] > 0, "no work of a caller that vanished was given up")
    for kind in CUT_OFF if seconds >= CUT_OFF_SECONDS else ():
        found.promise(nuisances.cut_off[kind] > 0, f"{kind} was never cut off")


async def _stopped(server: RunningTeacher, calls: Calls, found: Findings) -> None:
    """SIGSTOP: nobody waits beyond the deadline. SIGCONT: everybody is answered again, and rightly."""
    begun = time.perf_counter()
    server.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STOPPED_SECONDS)
    server.process.send_signal(signal.SIGCONT)
    stopped = calls.since(begun)
    await _back(calls, "after_sigcont", found)
    found.figures["sigstop"] = {"calls": stopped.statuses(), "slowest_s": round(stopped.slowest(), 2)}
    found.promise(bool(stopped.ended), "nobody called while the server was stopped")
    found.promise("wrong answer" not in stopped.statuses(), "wrong answers around SIGSTOP")
    late = stopped.slowest() > DEADLINE + LATE
    found.promise(not late, f"a deadline of {DEADLINE} s, but {stopped.slowest():.2f} s with a stopped server")


async def _killed(calls: Calls, found: Findings) -> None:
    """SIGKILL has just been sent: whoever waits, and whoever asks, is told at once."""
    begun = time.perf_counter()
    await asyncio.sleep(2)
    waiting = [call for call in calls.ended if call.started < begun < call.ended and call.status != "OK"]
    killed = calls.since(begun + LATE)
    slowest = max(killed.slowest(), max((call.ended - begun for call in waiting), default=0.0))
    found.figures["sigkill"] = {"calls": killed.statuses(), "slowest_s": round(slowest, 2)}
    found.promise(set(killed.statuses()) == {"UNAVAILABLE"}, f"a dead server: {killed.statuses()}")
    found.promise(slowest < LATE, f"{slowest:.2f} s until callers of a dead server were told")


async def _back(calls: Calls, name: str, found: Findings) -> None:
    """Everybody is answered again, and rightly."""
    begun = time.perf_counter()
    await asyncio.sleep(BACK_SECONDS)
    soon = calls.since(begun)
    await asyncio.sleep(2)
    later = calls.since(begun + BACK_SECONDS)
    first = min((call.ended - begun for call in soon.ended if call.status == "OK"), default=None)
    found.figures[name] = {"first_answer_s": first and round(first, 2), "calls": later.statuses()}
    found.promise(set(later.statuses()) == {"OK"}, f"{name}: {later.statuses()} from {BACK_SECONDS} s on")


@asynccontextmanager
async def _again(killed: RunningTeacher, folder: Path, flags: list[str]) -> AsyncIterator[None]:
    """A new server in the killed one's place."""
    assert killed.http
    env = QUIET | {"TEACHER_GRPC_ADDRESS": killed.grpc, "TEACHER_HTTP_ADDRESS": killed.http.removeprefix("http://")}
    await asyncio.to_thread(killed.process.wait)
    server = await asyncio.to_thread(wait_until_ready, start(folder, *flags, env=env))
    try:
        yield
    finally:
        await asyncio.to_thread(server.stop)


async def _grown(server: RunningTeacher, nuisances: Nuisances, seconds: float) -> None:
    """Short crowds until pools of threads and of memory have their size, which they keep. A leak has none."""
    for _ in range(CROWDS):
        before = Usage.of(server)
        async with nuisances.about(times=3):
            await asyncio.sleep(seconds)
        await asyncio.sleep(2)
        if _level(Usage.of(server), before):
            return


async def _settled(server: RunningTeacher, before: Usage) -> Usage:
    """What the server holds once it is at its level again, or when that was given up."""
    end = time.perf_counter() + SETTLING_SECONDS
    while not _level(now := Usage.of(server), before) and time.perf_counter() < end:
        await asyncio.sleep(0.5)
    return now


def _level(now: Usage, before: Usage) -> bool:
    return all(value <= asdict(before)[name] + asdict(MORE)[name] for name, value in asdict(now).items())


async def _cancelled(https: str, files: PemFiles) -> int:
    """How many requests the server has given up because nobody waited any more."""
    async with httpx.AsyncClient(base_url=https, verify=files.client_context(files.ca)) as client:
        text = (await client.get("/metrics")).text
    line: Any = next(
        line for line in text.splitlines() if line.startswith("teacher_requests_total{") and 'outcome="Canc' in line
    )
    return int(float(line.split()[1]))


def _address(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host, int(port)
