"""Keeps a server's models as its folders say, while it runs: loads what is new, renews what changed, lets go the rest.

Folders are looked at, not listened to: that works on every kind of volume.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable

import torch

from teacher_server.assembly import Assembly, Loaded
from teacher_server.errors import BadSettings, NotReady, TeacherError
from teacher_server.models import Models
from teacher_server.oip_service import InferenceModel
from teacher_server.reports import Observer
from teacher_server.repository import Found, Repository
from teacher_server.retries import Retries

POLL_S = 1.0
LEAVE_S = 1.0  # in which a request that has found its model may still come to it

log = logging.getLogger("teacher")


def settle_memory() -> None:
    """Give back what is not used any more, and leave what is here by now out of garbage collections: each of these
    would hold all callers up for 0.2 s.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Hosting:
    """One model at a time is loaded, and takes its place once it is warm."""

    def __init__(
        self,
        repository: Repository,
        models: Models,
        assembly: Assembly,
        observers: Callable[[str, str], list[Observer]],
        drain_timeout: float,
    ) -> None:
        """`observers` of a model by its name and digest, both empty where one is all that is ever served;
        `drain_timeout`: seconds that one that goes has to finish.
        """
        self.models, self._repository, self._assembly = models, repository, assembly
        self._observers, self._drain_timeout = observers, drain_timeout
        self._known: dict[str, Found] = {}  # what was tried last
        self._retries = Retries()
        self._unreadable = ""
        self.retiring: set[asyncio.Task[None]] = set()

    @property
    def torch_device(self) -> torch.device:
        return self._assembly.torch_device

    def load_all(self) -> None:
        """Load what is there. Raises what is wrong with the first teacher if none is left."""
        errors: list[Exception] = []
        for found in self._repository.scan().values():
            self._known[found.name] = found
            try:
                self.models.put(self._made(found, self._loaded(found)))
            except Exception as error:
                errors.append(error)
                self._failed(found.name, error)
        self._check_some(errors)

    async def warm_up(self) -> None:
        """Make ready what was loaded. Raises what is wrong with the first teacher if none is left."""
        errors: list[Exception] = []
        for model in self.models:
            try:
                await _warm(model)
            except Exception as error:
                self.models.remove(model.name)
                errors.append(error)
                self._failed(model.name, error)
        self._check_some(errors)

    async def follow(self) -> None:
        """Keep to what the folders hold; ends when cancelled. What changes is read when it has come to rest."""
        before: dict[str, Found] = {}
        while self._repository.watched:
            await asyncio.sleep(POLL_S)
            try:
                found = await asyncio.to_thread(self._repository.scan)
            except OSError as error:
                self._complain(str(error))
                continue
            self._complain("")
            for name in self._known.keys() - found.keys():
                self._let_go(name)
            for each in found.values():
                if each == before.get(each.name) and self._wanted(each):
                    await self._renew(each)
            before = found

    def _wanted(self, found: Found) -> bool:
        """Whether to load it now: it is new or due, and the device could warm it up."""
        due = self._known.get(found.name) != found or self._retries.due(found.name)
        return due and not self._assembly.stuck

    async def _renew(self, found: Found) -> None:
        self._known[found.name] = found
        try:
            await self._replace(found)
        except Exception as error:
            self._failed(found.name, error)
        else:
            self._retries.forget(found.name)
            return
        settle_memory()  # here, where no error holds any more what was loaded

    async def _replace(self, found: Found) -> None:
        """Load, warm up and serve it. Raises what keeps it from that."""
        loaded = await asyncio.to_thread(self._loaded, found)
        served = self.models.get(found.name)
        if served and served.digest == loaded.description.digest:
            self.models.put(served)  # written anew, and the same
            return
        model = self._made(found, loaded)
        await _warm(model)
        log.info("model %s: teacher %s is served now", model.name, model.digest)
        self._retire(self.models.put(model))

    def _let_go(self, name: str) -> None:
        del self._known[name]
        self._retries.forget(name)
        gone = self.models.remove(name)
        if gone:
            log.info("model %s: its folder is gone, so it is served no longer", name)
        self._retire(gone)

    def _retire(self, model: InferenceModel | None) -> None:
        """Let it finish, without making anybody wait for that; then its memory is free."""
        if model:
            task = asyncio.create_task(_finish(model, self._drain_timeout))
            self.retiring.add(task)
            task.add_done_callback(self.retiring.discard)
            task.add_done_callback(lambda _: self._freed())
        else:
            settle_memory()

    def _freed(self) -> None:
        """A model has gone: there may be room for one that found none."""
        settle_memory()
        self._retries.hurry()

    def _loaded(self, found: Found) -> Loaded:
        if found.fault:
            raise BadSettings(found.fault)
        return self._assembly.load(found.folder, may_change=self._repository.watched)

    def _made(self, found: Found, loaded: Loaded) -> InferenceModel:
        who = ("", "") if self._repository.single else (found.name, loaded.description.digest)
        changes = Observer(state=lambda _: self.models.on_change())
        return self._assembly.model(found.name, loaded, [*self._observers(*who), changes])

    def _check_some(self, errors: list[Exception]) -> None:
        if not self.models:
            raise errors[0] if errors else BadSettings("the folders hold no teacher any more")

    def _failed(self, name: str, error: Exception) -> None:
        """Say so, and try it again if it may go well without a change of its files."""
        if self._repository.single:
            return  # it will be raised
        if _may_pass(error):
            self._retries.failed(name)
        else:
            self._retries.forget(name)
        why = str(error).encode("utf-8", "backslashreplace").decode()  # it may name a folder whose name is no UTF-8
        if not isinstance(error, (TeacherError, MemoryError, OSError)):
            log.error("model %s failed unexpectedly", name, exc_info=error)
            why = f"{type(error).__name__}: see the server's log"
        stays = "; what was served under this name stays" if self.models.get(name) else ""
        log.error("model %s cannot be served: %s%s", name, why, stays)
        self.models.set_broken(name, why)

    def _complain(self, why: str) -> None:
        """Say once that folders cannot be read; what is served stays."""
        if why and why != self._unreadable:
            log.error("the folders of teachers cannot be read: %s; what is served stays", why)
        self._unreadable = why


def _may_pass(error: Exception) -> bool:
    """Whether it is for want of memory, of a disk that answers, or of a device that is not stuck."""
    return any(isinstance(each, (MemoryError, OSError, NotReady)) for each in (error, error.__cause__))


async def _warm(model: InferenceModel) -> None:
    """Raises what its warm-up raises, when nothing of it is left running."""
    try:
        await model.service.warm_up()
    except BaseException:
        await model.service.drain(0)
        raise


async def _finish(model: InferenceModel, grace: float) -> None:
    model.service.leave()
    await asyncio.sleep(LEAVE_S)
    await model.service.drain(grace)
