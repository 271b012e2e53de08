"""One run of the load generator: connect, make the requests, load, report."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.status import Status

from teacher_server.channel import ClientFiles
from teacher_server.errors import BadSettings
from teacher_server.loadgen.doors import Door, InferenceDoor, NativeDoor, Refused
from teacher_server.loadgen.drive import Drive, Load
from teacher_server.loadgen.report import progress_line
from teacher_server.loadgen.walks import Shape, draw_walks

CONNECTIONS = 8
DISTINCT = 64  # requests that are made before the load, and sent in turn
LATEST = 1_000  # requests whose percentiles are shown while it runs
PROTOCOLS = ("native", "oip", "rest")


@dataclass(frozen=True)
class Target:
    """A server, and how to speak to it."""

    address: str
    protocol: str = "native"
    model: str = "teacher"  # of the Open Inference Protocol

    def open(self, files: ClientFiles, shape: Shape) -> Door:
        """A door for such requests, inside the event loop that will use it. Raises BadSettings."""
        if self.protocol not in PROTOCOLS:
            raise BadSettings(f"unknown protocol {self.protocol!r}: use {', '.join(PROTOCOLS)}")
        if self.protocol == "rest":
            return _rest_door(self.address, self.model, files)
        channels = [files.aio_channel(self.address) for _ in range(CONNECTIONS)]
        metadata = files.metadata()
        if self.protocol == "native":
            return NativeDoor(channels, metadata, shape.whole)
        return InferenceDoor(channels, metadata, self.model)


def _rest_door(address: str, model: str, files: ClientFiles) -> Door:
    if not address.startswith(("http://", "https://")):
        raise BadSettings(f"bad address {address!r}: --protocol rest takes http://HOST:PORT")
    import httpx

    from teacher_server.loadgen.rest_door import RestDoor

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    verify = files.tls_context() if address.startswith("https://") else True
    client = httpx.AsyncClient(base_url=address, limits=limits, headers=dict(files.metadata()), verify=verify)
    return RestDoor(client, model)


def run_bench(
    target: Target, files: ClientFiles, shape: Shape, load: Load, console: Console
) -> tuple[dict[str, Any], bool]:
    """(summary, whether it was interrupted). Progress is shown on the console, if that is a terminal.

    Raises BadSettings when nobody answers or a single request is refused, so that no load is sent in vain.
    """
    return asyncio.run(_run(target, files, shape, load, console))


async def _run(
    target: Target, files: ClientFiles, shape: Shape, load: Load, console: Console
) -> tuple[dict[str, Any], bool]:
    door = target.open(files, shape)
    try:
        messages = await _messages(door, target, shape, load)
        drive = Drive(door, messages, shape.positions, load)
        interrupted = await _watched(drive, load, console)
        return {
            "target": asdict(target),
            "shape": asdict(shape),
            "load": asdict(load),
            "interrupted": interrupted,
            **drive.tally.summary(),
        }, interrupted
    finally:
        await door.close()


async def _messages(door: Door, target: Target, shape: Shape, load: Load) -> list[bytes]:
    try:
        rows, columns = await door.extent()
        random = np.random.default_rng(load.seed)
        messages = [door.message(draw_walks(shape, rows, columns, random)) for _ in range(DISTINCT)]
        await door.ask(messages[0], load.timeout)
    except Refused as refusal:
        raise BadSettings(f"{target.address} refuses ({refusal.status}): {refusal}") from None
    return messages


async def _watched(drive: Drive, load: Load, console: Console) -> bool:
    """Run the drive to its end or to Ctrl-C; says whether it was that."""
    driving = asyncio.create_task(drive.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, driving.cancel)
    with console.status("connected") as status:
        showing = asyncio.create_task(_show(drive, load, status))
        try:
            await driving
        except asyncio.CancelledError:
            return True
        finally:
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing
    return False


async def _show(drive: Drive, load: Load, status: Status) -> None:
    counted_from = perf_counter() + load.warm_up
    while True:
        status.update(progress_line(perf_counter() - counted_from, load.duration, drive.tally.summary(LATEST)))
        await asyncio.sleep(0.5)
