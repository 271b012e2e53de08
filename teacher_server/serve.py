"""One server process: load, bind, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING

from teacher_server.artifact import read_description
from teacher_server.assembly import Assembly
from teacher_server.calls import Calls
from teacher_server.device_memory import DeviceMemory
from teacher_server.errors import BadSettings
from teacher_server.grpc_api import GrpcDoor
from teacher_server.hosting import Hosting, settle_memory
from teacher_server.http_api import HttpDoor
from teacher_server.logs import RequestLog, configure
from teacher_server.models import Models
from teacher_server.monitor_api import monitor_router
from teacher_server.reports import Observer, State, tee
from teacher_server.repository import Repository
from teacher_server.security import Access, access_of
from teacher_server.settings import Settings

if TYPE_CHECKING:
    from teacher_server.tracing import Tracing

log = logging.getLogger("teacher")

OTEL_SWITCHES = ("SDK_DISABLED", "TRACES_EXPORTER", "EXPORTER_OTLP_ENDPOINT", "EXPORTER_OTLP_TRACES_ENDPOINT")
# gRPC answers and then closes what is left; requests themselves have had the drain timeout before.
CLOSING_SECONDS = 2.0
# Before a stuck server ends itself: its callers are told at once, and whoever scrapes it sees the trip once, for the
# next process counts from zero. Longer than the interval and the timeout of a scrape (deploy/observe).
STUCK_SECONDS = 10.0


def run(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or, if so set, the end of standard input.

    Raises BadSettings, BadArtifact and, when the warm-up fails, EngineFailure.
    """
    configure(settings.telling.log_format, settings.telling.log_level)
    access = access_of(settings.security, settings.addresses)
    repository = Repository(settings.artifacts, settings.model_name)
    only = read_description(settings.artifacts[0]) if repository.single else None
    assembly = Assembly(settings)
    tracing = _tracing(settings.telling.otlp_endpoint, only.digest if only else None)
    try:
        hosting = _hosting(settings, repository, assembly, tracing)
        hosting.load_all()
        asyncio.run(_serve(settings, access, hosting, tracing))
    finally:
        if tracing:
            tracing.close()


def _tracing(endpoint: str | None, digest: str | None) -> Tracing | None:
    """Traces, if a flag or OpenTelemetry's own variables ask for them. Raises BadSettings without the extra."""
    told = {name: os.environ.get(f"OTEL_{name}", "") for name in OTEL_SWITCHES}
    off = told["SDK_DISABLED"].lower() == "true" or told["TRACES_EXPORTER"] == "none"
    if off or not (endpoint or told["EXPORTER_OTLP_ENDPOINT"] or told["EXPORTER_OTLP_TRACES_ENDPOINT"]):
        return None
    try:
        from teacher_server.tracing import Tracing
    except ModuleNotFoundError as error:
        raise BadSettings(f"traces need {error.name}: pip install 'hoser-distill[otel]'") from None
    return Tracing(endpoint, digest)


def _hosting(settings: Settings, repository: Repository, assembly: Assembly, tracing: Tracing | None) -> Hosting:
    def observers(name: str = "", digest: str = "") -> list[Observer]:
        told = [RequestLog(settings.telling.slow_request, model=name).observer]
        return [*told, tracing.observer(digest)] if tracing else told

    models = Models(observer=tee(observers()))
    return Hosting(repository, models, assembly, observers, settings.drain_timeout)


async def _serve(settings: Settings, access: Access, hosting: Hosting, tracing: Tracing | None) -> None:
    stop, changed, models = _stop_event(settings.until_stdin_closes), asyncio.Event(), hosting.models
    models.on_change = changed.set
    calls, limits = Calls(tracing.span) if tracing else Calls(), settings.limits
    grpc_door = GrpcDoor(models, settings.connections, access, calls, limits.max_message_bytes)
    pages = monitor_router(models, DeviceMemory(hosting.torch_device))
    http_door = HttpDoor(models, [pages], settings.connections, access, calls) if settings.http_address else None
    following = asyncio.create_task(_follow(changed, models, grpc_door, settings.exit_when_stuck))
    try:
        bound = [f"grpc={grpc_door.bind(address)}" for address in settings.grpc_addresses]
        await grpc_door.start()
        if http_door and settings.http_address:
            bound.append(f"http={await http_door.start(settings.http_address)}")
        # Stable lines, so that a program that starts a server can read its ports.
        _announce(f"teacher: listening {' '.join(bound)} digest={','.join(model.digest for model in models)}")
        await _until_stopped(hosting, grpc_door, stop)
        models.leave()
        log.info("stopping: not ready for %s s, then finishing the requests that are here", settings.drain_delay)
        await asyncio.sleep(settings.drain_delay)
    finally:
        following.cancel()
        # Not ready first, then finish what was admitted, then close the ports.
        models.leave()
        await grpc_door.tell_health()
        await asyncio.gather(models.drain(settings.drain_timeout), *hosting.retiring)
        await grpc_door.stop(CLOSING_SECONDS)
        if http_door:
            await http_door.stop(CLOSING_SECONDS)


async def _follow(changed: asyncio.Event, models: Models, grpc_door: GrpcDoor, exit_when_stuck: bool) -> None:
    """Say over grpc.health.v1 what the state is; the HTTP pages read it themselves."""
    while True:
        await changed.wait()
        changed.clear()
        await grpc_door.tell_health()
        if exit_when_stuck and models.state is State.STUCK:
            await asyncio.sleep(STUCK_SECONDS)
            os._exit(1)  # also if the batch has ended by now; an ordinary end would wait for the device's thread


async def _until_stopped(hosting: Hosting, grpc_door: GrpcDoor, stop: asyncio.Event) -> None:
    """Warm up, be ready, and return when the process is told to stop. Raises what the warm-up raises."""
    warm_up = asyncio.ensure_future(hosting.warm_up())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({warm_up, stopped}, return_when=asyncio.FIRST_COMPLETED)
    following = None
    if warm_up.done():
        warm_up.result()
        settle_memory()
        await grpc_door.tell_health()
        following = asyncio.create_task(hosting.follow())
        _announce("teacher: ready")
    await stopped
    for task in (warm_up, *([following] if following else [])):
        task.cancel()


def _stop_event(until_stdin_closes: bool) -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        threading.Thread(target=_wait_for_end_of_stdin, args=(loop, stop), daemon=True).start()
    return stop


def _wait_for_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # os.read, for a thread inside sys.stdin would hold its lock when the interpreter ends.
    with contextlib.suppress(OSError):
        while os.read(0, 65_536):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has ended before
        loop.call_soon_threadsafe(stop.set)


def _announce(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more
        print(line, flush=True)
