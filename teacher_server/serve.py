"""One server process: load, bind, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from teacher_server.artifact import load_artifact
from teacher_server.batcher import Batcher
from teacher_server.calls import Calls
from teacher_server.description import TeacherDescription
from teacher_server.device_memory import DeviceMemory
from teacher_server.engine import BATCH_TOKENS, Engine, choose_device, choose_dtype
from teacher_server.errors import BadSettings
from teacher_server.grpc_api import GrpcDoor
from teacher_server.http_api import HttpDoor
from teacher_server.logs import RequestLog, configure
from teacher_server.metrics import Metrics
from teacher_server.monitor_api import monitor_router
from teacher_server.oip_service import InferenceModel
from teacher_server.packing import Packer
from teacher_server.reports import Observer, State, tee
from teacher_server.security import Access, access_of
from teacher_server.service import Service
from teacher_server.settings import Settings

if TYPE_CHECKING:
    from teacher_server.tracing import Tracing

log = logging.getLogger("teacher")

OTEL_SWITCHES = ("SDK_DISABLED", "TRACES_EXPORTER", "EXPORTER_OTLP_ENDPOINT", "EXPORTER_OTLP_TRACES_ENDPOINT")
# gRPC answers and then closes what is left; requests themselves have had the drain timeout before.
CLOSING_SECONDS = 2.0


def run(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or, if so set, the end of standard input.

    Raises BadSettings, BadArtifact and, when the warm-up fails, EngineFailure.
    """
    configure(settings.telling.log_format, settings.telling.log_level)
    access = access_of(settings.security, settings.addresses)
    engine, description = _load(settings)
    tracing = _tracing(settings.telling.otlp_endpoint, description.digest)
    try:
        asyncio.run(_serve(settings, access, engine, description, tracing))
    finally:
        if tracing:
            tracing.close()


def _load(settings: Settings) -> tuple[Engine, TeacherDescription]:
    artifact = load_artifact(settings.artifact)
    try:
        device = choose_device(settings.device)
        dtype = choose_dtype(settings.dtype, device)
    except ValueError as error:
        raise BadSettings(str(error)) from None
    return Engine(artifact.build(), device, dtype, settings.compile), artifact.description


def _tracing(endpoint: str | None, digest: str) -> Tracing | None:
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


def _model(
    settings: Settings, engine: Engine, description: TeacherDescription, observers: Sequence[Observer]
) -> InferenceModel:
    special = description.special
    batch_tokens = settings.batch_tokens or BATCH_TOKENS[engine.device.type]
    packer = Packer(description.model.block_size, special.sot, special.pad, batch_tokens, bucketed=settings.compile)
    metrics = Metrics(batch_tokens)
    observer = tee([metrics.observer, *observers])
    batcher = Batcher(
        engine.log_probs,
        packer,
        settings.queue_tokens,
        max_queue_delay=settings.max_queue_delay,
        batch_timeout=settings.batch_timeout,
        observer=observer,
    )
    service = Service(description, engine.compute_type, batcher, settings.limits, observer)
    return InferenceModel(service, settings.model_name, metrics)


async def _serve(
    settings: Settings, access: Access, engine: Engine, description: TeacherDescription, tracing: Tracing | None
) -> None:
    stop = _stop_event(settings.until_stdin_closes)
    states: asyncio.Queue[State] = asyncio.Queue()
    observers = [RequestLog(settings.telling.slow_request).observer, Observer(state=states.put_nowait)]
    model = _model(settings, engine, description, [*observers, tracing.observer] if tracing else observers)
    service, calls = model.service, Calls(tracing.span) if tracing else Calls()
    grpc_door = GrpcDoor(model, settings.connections, access, calls)
    pages = monitor_router(model, DeviceMemory(engine.device))
    http_door = HttpDoor(model, [pages], settings.connections, access, calls) if settings.http_address else None
    following = asyncio.create_task(_follow(states, grpc_door, settings.exit_when_stuck))
    try:
        bound = [f"grpc={grpc_door.bind(address)}" for address in settings.grpc_addresses]
        await grpc_door.start()
        if http_door and settings.http_address:
            bound.append(f"http={await http_door.start(settings.http_address)}")
        # Stable lines, so that a program that starts a server can read its ports.
        _announce(f"teacher: listening {' '.join(bound)} digest={description.digest}")
        await _until_stopped(service, grpc_door, stop)
        service.leave()
        log.info("stopping: not ready for %s s, then finishing the requests that are here", settings.drain_delay)
        await asyncio.sleep(settings.drain_delay)
    finally:
        following.cancel()
        # Not ready first, then finish what was admitted, then close the ports.
        await grpc_door.set_serving(False)
        await service.drain(settings.drain_timeout)
        await grpc_door.stop(CLOSING_SECONDS)
        if http_door:
            await http_door.stop(CLOSING_SECONDS)


async def _follow(states: asyncio.Queue[State], grpc_door: GrpcDoor, exit_when_stuck: bool) -> None:
    """Say over grpc.health.v1 what the service's state is; the HTTP pages read it themselves."""
    while True:
        state = await states.get()
        await grpc_door.set_serving(state is State.READY)
        if exit_when_stuck and state is State.STUCK:
            await asyncio.sleep(CLOSING_SECONDS)  # the callers are being told
            os._exit(1)  # an ordinary end would wait for the thread that the device holds


async def _until_stopped(service: Service, grpc_door: GrpcDoor, stop: asyncio.Event) -> None:
    """Warm up, be ready, and return when the process is told to stop. Raises what the warm-up raises."""
    warm_up = asyncio.ensure_future(service.warm_up())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({warm_up, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if warm_up.done():
        warm_up.result()
        settle_memory()
        await grpc_door.set_serving(True)
        _announce("teacher: ready")
    await stopped
    warm_up.cancel()


def settle_memory() -> None:
    """Leave what is here by now, which stays, out of garbage collections: each would hold all callers up for 0.2 s."""
    gc.collect()
    gc.freeze()


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
