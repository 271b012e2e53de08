"""What of an Open Inference request reaches the service: priority, deadline, digest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from teacher_server.errors import InvalidRequest, UnknownModel
from teacher_server.models import Models
from teacher_server.oip_service import Inference, InferenceModel
from teacher_server.service import Scores, Service
from teacher_server.waiting import Priority
from tests.teacher_server.scoring import dense_arrays_of, work_of
from tests.teacher_server.test_service import DIGEST, service

ARRAYS = dense_arrays_of(work_of([[1, 2, 3]], [[[6, 7]]]))


class Recording:
    """A service that notes how it was asked."""

    def __init__(self, real: Service) -> None:
        self._score = real.score
        self.asked: dict[str, Any] = {}

    async def __call__(self, work: Any, digest: str, **how: Any) -> Scores:
        self.asked = {"digest": digest, **how}
        return await self._score(work, digest)


@pytest.mark.parametrize(
    ("parameters", "remaining", "expected"),
    [
        ({}, None, {"digest": "", "priority": Priority.TRAINING, "timeout": None}),
        ({"priority": 1}, 3.0, {"digest": "", "priority": Priority.TRAINING, "timeout": 3.0}),
        ({"priority": 2, "digest": DIGEST}, None, {"digest": DIGEST, "priority": Priority.BULK, "timeout": None}),
        ({"timeout": 2_000_000}, 3.0, {"digest": "", "priority": Priority.TRAINING, "timeout": 2.0}),
        ({"timeout": 4_000_000}, 3.0, {"digest": "", "priority": Priority.TRAINING, "timeout": 3.0}),
        ({"timeout": 0}, None, {"digest": "", "priority": Priority.TRAINING, "timeout": None}),
    ],
)
def test_parameters_reach_the_service(
    parameters: dict[str, Any], remaining: float | None, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def whole() -> None:
        teacher = service()
        await teacher.warm_up()
        recording = Recording(teacher)
        monkeypatch.setattr(teacher, "score", recording)
        await InferenceModel(teacher).infer(Inference(ARRAYS, parameters), remaining)
        assert recording.asked == expected
        await teacher.drain(10)

    asyncio.run(whole())


@pytest.mark.parametrize("outputs", [("LOG_PROBS", "LOGITS"), ("log_probs",), ("",)])
def test_other_outputs_are_refused(outputs: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="unknown output"):
        asyncio.run(InferenceModel(service()).infer(Inference(ARRAYS, {}, outputs)))


def test_a_name_and_a_version_are_its_own() -> None:
    model = InferenceModel(service(), "lm")
    models = Models([model])
    assert models.named("lm") is models.named("lm", "1") is models.named(model.digest) is model
    for name, version in (("", ""), ("LM", ""), ("teacher", "1"), ("lm", "01"), ("lm", "2")):
        with pytest.raises(UnknownModel, match="only"):
            models.named(name, version)
