"""From a teacher's folder to a model that answers: engine, batcher, service and what they report to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from teacher_server.artifact import load_artifact
from teacher_server.batcher import Batcher
from teacher_server.description import TeacherDescription
from teacher_server.device import Device
from teacher_server.engine import BATCH_TOKENS, Engine, choose_device, choose_dtype
from teacher_server.errors import BadSettings
from teacher_server.metrics import Metrics
from teacher_server.oip_service import InferenceModel
from teacher_server.packing import Packer
from teacher_server.reports import Observer, tee
from teacher_server.service import Service
from teacher_server.settings import Settings


@dataclass(frozen=True, eq=False)
class Loaded:
    """A teacher on the device."""

    engine: Engine
    description: TeacherDescription


class Assembly:
    """Makes models that share one device, all of them with the same settings."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadSettings for a device or compute type that cannot be had."""
        self._settings, self._device = settings, Device()
        try:
            self.torch_device = choose_device(settings.device)
            self._dtype = choose_dtype(settings.dtype, self.torch_device)
        except ValueError as error:
            raise BadSettings(str(error)) from None

    @property
    def stuck(self) -> bool:
        """Whether the device does not finish a batch."""
        return self._device.stuck

    def load(self, folder: Path, *, may_change: bool) -> Loaded:
        """Slow, in any thread; the folder `may_change` afterwards. Raises BadArtifact, and MemoryError."""
        artifact = load_artifact(folder, copied=may_change)
        engine = Engine(artifact.build(), self.torch_device, self._dtype, self._settings.compile)
        return Loaded(engine, artifact.description)

    def model(self, name: str, loaded: Loaded, observers: Sequence[Observer]) -> InferenceModel:
        """Quick; its warm-up is still to come."""
        settings, description, special = self._settings, loaded.description, loaded.description.special
        batch_tokens = settings.batch_tokens or BATCH_TOKENS[self.torch_device.type]
        packer = Packer(description.model.block_size, special.sot, special.pad, batch_tokens, bucketed=settings.compile)
        metrics = Metrics(batch_tokens)
        observer = tee([metrics.observer, *observers])
        batcher = Batcher(
            loaded.engine.log_probs,
            packer,
            settings.queue_tokens,
            max_queue_delay=settings.max_queue_delay,
            batch_timeout=settings.batch_timeout,
            observer=observer,
            device=self._device,
        )
        service = Service(description, loaded.engine.compute_type, batcher, settings.limits, observer)
        return InferenceModel(service, name, metrics)
