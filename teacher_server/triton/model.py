"""`model.py` of a Triton model repository: the Python backend's calls <-> a DenseScorer.

`teacher triton-repo` copies this file there, and beside it the modules of this package that it needs. The environment
of the Python backend must have torch, numpy and safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the modules beside this file, even where another version of them is installed

import torch  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from torch.utils.dlpack import from_dlpack  # noqa: E402

from teacher_server.artifact import load_artifact  # noqa: E402
from teacher_server.dense import LOG_PROBS  # noqa: E402
from teacher_server.engine import BATCH_TOKENS, DTYPES, Engine  # noqa: E402
from teacher_server.errors import (  # noqa: E402
    EngineFailure,
    InvalidRequest,
    TeacherError,
    TooLarge,
    WrongTeacher,
)
from teacher_server.limits import Limits  # noqa: E402
from teacher_server.triton.batch import Arrays, Call, DenseScorer  # noqa: E402

# Names of TritonError's codes, which the backend adds to its module after this file is loaded.
CODE_OF: dict[type[TeacherError], str] = {
    InvalidRequest: "INVALID_ARG",
    TooLarge: "INVALID_ARG",  # Triton has no code for it
    WrongTeacher: "NOT_FOUND",
    EngineFailure: "INTERNAL",
}


class TritonPythonModel:
    """What the Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load and verify the teacher; an error here keeps the model from being served."""
        entries = json.loads(args["model_config"])["parameters"]
        parameters = {name: entry["string_value"] for name, entry in entries.items()}
        artifact = load_artifact(HERE / "artifact")
        if artifact.description.digest != parameters["digest"]:
            raise ValueError(f"config.pbtxt is for teacher {parameters['digest']}, not {artifact.description.digest}")
        on_gpu = args["model_instance_kind"] == "GPU"
        device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        engine = Engine(artifact.build(), device, DTYPES[parameters["compute_type"]])
        limits = Limits(**json.loads(parameters["limits"]))
        batch_tokens = int(parameters["batch_tokens"]) or BATCH_TOKENS[device.type]
        self._scorer = DenseScorer(artifact.description, engine, limits, batch_tokens)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request of a dynamic batch, in order."""
        answers = self._scorer.answers([_call(request) for request in requests])
        return [_response(answer, request) for answer, request in zip(answers, requests, strict=True)]


# Tensors cross the border through DLPack: backends that were built before numpy 2 read and write its arrays wrongly,
# without a word.
def _call(request: Any) -> Call:
    parameters = json.loads(request.parameters() or "{}")
    arrays = {tensor.name(): from_dlpack(tensor).numpy() for tensor in request.inputs()}
    # A request that names no outputs wants all that the model has: candidates are meant.
    of_trips = LOG_PROBS.name not in request.requested_output_names()
    return Call(arrays, str(parameters.get("digest", "")), str(parameters.get("datatype", "FP32")), of_trips)


def _response(answer: Arrays | TeacherError, request: Any) -> Any:
    if isinstance(answer, TeacherError):
        code = getattr(pb_utils.TritonError, CODE_OF[type(answer)])
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(answer), code))
    tensors = [
        pb_utils.Tensor.from_dlpack(name, torch.from_numpy(array))
        for name, array in answer.items()
        if name in request.requested_output_names()
    ]
    return pb_utils.InferenceResponse(tensors)
