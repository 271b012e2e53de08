"""The teachers of one server, by name and by digest. Every door looks up here which one a request means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from teacher_server import __version__
from teacher_server.errors import InvalidRequest, NotReady, UnknownModel, WrongTeacher
from teacher_server.metrics import Metrics
from teacher_server.oip_service import VERSION, InferenceModel
from teacher_server.oip_statistics import statistics_of
from teacher_server.reports import Observer, State, reading, tee

EXTENSIONS = ["binary_tensor_data", "model_configuration", "parameters", "schedule_policy", "statistics"]
LISTED = 4  # teachers that a message names, so that it stays short


class Models:
    """What is served now, and what cannot be served and why. Changed in the event loop only.

    While one teacher is all that there is, a request need not name it.
    """

    def __init__(self, models: Iterable[InferenceModel] = (), observer: Observer | None = None) -> None:
        """`observer` hears of the requests that end before it is known which of several teachers they mean."""
        self.broken: dict[str, str] = {}  # why, by name
        self.nobodys = Metrics()  # counts those requests
        self.on_change: Callable[[], None] = lambda: None
        self._observer = tee([self.nobodys.observer, *([observer] if observer else [])])
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Iterator[InferenceModel]:
        return iter(list(self._models.values()))

    def __len__(self) -> int:
        return len(self._models)

    def get(self, name: str) -> InferenceModel | None:
        return self._models.get(name)

    @property
    def only(self) -> InferenceModel | None:
        """The teacher, where one is all that there is."""
        return next(iter(self)) if len(self._models) == 1 and self.broken.keys() <= self._models.keys() else None

    @property
    def state(self) -> State:
        """The server's: that of the teacher which is farthest from being ready."""
        states = {model.service.state for model in self}
        order = (State.DRAINING, State.LEAVING, State.STUCK, State.STARTING, State.READY)
        return next((state for state in order if state in states), State.STARTING)

    @property
    def ready(self) -> bool:
        return self.state is State.READY

    def meant(self, name: str = "", digest: str = "") -> InferenceModel:
        """The teacher that a request means by a name (or digest) or by a digest; neither: the only one.

        Raises UnknownModel, WrongTeacher, NotReady, and InvalidRequest where several are there and none is named.
        """
        if name:
            return self.named(name)
        if found := self._by_digest(digest) or self.only:
            return found  # the only one refuses what is meant for another, in its own words
        if not self._models:
            raise NotReady("no teacher is served here now: try again later or another replica")
        if digest:
            raise WrongTeacher(f"the request is for teacher {digest}, but here are {self._listed()}")
        raise InvalidRequest(
            "several teachers are served here and the request names none: name one by its digest "
            f"(a run's setting distill.teacher_digest) or its name: {self._listed()}"
        )

    def named(self, name: str, version: str = "") -> InferenceModel:
        """The teacher of this name or digest. An empty version is any. Raises UnknownModel, and NotReady."""
        found = self._models.get(name) or self._by_digest(name)
        if name in self.broken and not found:
            raise NotReady(f"model {name!r} cannot be served: the server's status says why")
        if not found:
            here = repr(self.only.name) if self.only else self._listed()
            raise UnknownModel(f"there is no model {name!r} here, {f'only {here}' if here else 'nor any other'}")
        if version not in ("", VERSION):
            raise UnknownModel(f"model {name!r} has no version {version!r}, only {VERSION!r}")
        return found

    def reading(self) -> AbstractContextManager[None]:
        """Around what a door does to a request before it knows whom it is for: one that fails there is reported."""
        return self.only.service.reading() if self.only else reading(self._observer)

    def put(self, model: InferenceModel) -> InferenceModel | None:
        """Serve this one, from now on; returns the one of its name that it takes the place of."""
        older = self._models.get(model.name)
        self._models = {**self._models, model.name: model}
        self.broken.pop(model.name, None)
        self.on_change()
        return older

    def remove(self, name: str) -> InferenceModel | None:
        """Serve what has this name no longer; it is returned, and finishes what it has begun."""
        self.broken.pop(name, None)
        gone = self._models.pop(name, None)
        self.on_change()
        return gone

    def set_broken(self, name: str, why: str) -> None:
        """What has this name cannot be served, or not as it is now; who was served under the name before still is."""
        self.broken[name] = why
        self.on_change()

    def leave(self) -> None:
        """Be no longer ready, but answer."""
        for model in self:
            model.service.leave()

    async def drain(self, grace: float) -> None:
        """Refuse new requests at once; return when those that were admitted are answered, or after `grace` s."""
        await asyncio.gather(*(model.service.drain(grace) for model in self))

    def server_metadata(self) -> dict[str, Any]:
        """Who serves, and which extensions of the Open Inference Protocol it speaks."""
        return {"name": "teacher", "version": __version__, "extensions": EXTENSIONS}

    def statistics(self, *chosen: InferenceModel) -> dict[str, Any]:
        """What the chosen ones, or all, have done so far."""
        return {"model_stats": [statistics_of(model.metrics, model.name, VERSION) for model in chosen or self]}

    def index(self) -> list[dict[str, str]]:
        """Name, version, state and reason of each, as a Triton server's repository index would tell them."""
        served = [
            {
                "name": model.name,
                "version": VERSION,
                "state": "READY" if model.ready else "UNAVAILABLE",
                "reason": self.broken.get(model.name, "" if model.ready else model.service.state.value),
            }
            for model in self
        ]
        others = [
            {"name": name, "version": "", "state": "UNAVAILABLE", "reason": why}
            for name, why in self.broken.items()
            if name not in self._models
        ]
        return served + others

    def _by_digest(self, digest: str) -> InferenceModel | None:
        found = [model for model in self if model.digest == digest]
        return next((model for model in found if model.ready), found[0] if found else None)

    def _listed(self) -> str:
        told = [f"{model.name} ({model.digest})" for model in self]
        more = [f"{len(told) - LISTED} more"] if len(told) > LISTED else []
        return ", ".join(told[:LISTED] + more)
