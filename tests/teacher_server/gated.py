"""A service whose device waits for a gate and whose queue is small: for what happens when a server is in trouble."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from teacher_server.batcher import Batcher
from teacher_server.description import TeacherDescription
from teacher_server.oip_service import InferenceModel
from teacher_server.packing import PackedBatch
from teacher_server.reports import Observer, RequestReport
from teacher_server.rows import Floats
from teacher_server.service import Service
from tests.teacher_server.scoring import SPECIAL, packer, tiny_engine
from tests.teacher_server.test_service import DIGEST, GRID, LIMITS, MODEL


class GatedDevice:
    """An engine that computes while `go` is set, and fails if `fault` says how."""

    def __init__(self) -> None:
        self.go, self.begun, self.fault = threading.Event(), 0, ""
        self.go.set()
        self._engine = tiny_engine(MODEL)

    def compute(self, batch: PackedBatch) -> Floats:
        self.begun += 1
        assert self.go.wait(30)
        if self.fault:
            raise RuntimeError(self.fault)
        return self._engine.log_probs(batch)


@dataclass(frozen=True)
class Gated:
    """A ready service and what it has reported."""

    model: InferenceModel
    device: GatedDevice
    reports: list[RequestReport]


@asynccontextmanager
async def gated(kind: type[Service] = Service) -> AsyncIterator[Gated]:
    """Ready for the time of a `with`; one small request computes, one waits, and the next is one too many."""
    device, reports = GatedDevice(), list[RequestReport]()
    observer = Observer(request=reports.append)
    batcher = Batcher(device.compute, packer(), queue_tokens=4, observer=observer)
    description = TeacherDescription(MODEL.config, SPECIAL, GRID, {}, DIGEST)
    service = kind(description, "float32", batcher, LIMITS, observer)
    await service.warm_up()
    device.begun = 0
    try:
        yield Gated(InferenceModel(service), device, reports)
    finally:
        device.go.set()
        await service.drain(10)
