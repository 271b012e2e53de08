"""The dense form of a request as the Open Inference Protocol's clients send it: stock clients, typed contents, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

Arrays = Mapping[str, NDArray[Any]]
DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT32": "<i4"}
OF_TRIPS = ("LOG_LIKELIHOOD", "TOKEN_COUNT")  # the outputs that say how probable whole trips are


def stock_inputs(arrays: Arrays, client: Any, **how: Any) -> list[Any]:
    """Inputs of tritonclient.grpc or tritonclient.http; `how` goes to set_data_from_numpy."""
    inputs = []
    for name, array in arrays.items():
        inputs.append(client.InferInput(name, list(array.shape), "INT32"))
        inputs[-1].set_data_from_numpy(array, **how)
    return inputs


def infer_message(arrays: Arrays, model: str, *, raw: bool = True, outputs: Sequence[str] = ()) -> pb.ModelInferRequest:
    """The protobuf message, its numbers raw or typed."""
    message = pb.ModelInferRequest(model_name=model, outputs=[{"name": name} for name in outputs])
    for name, array in arrays.items():
        tensor = message.inputs.add(name=name, datatype="INT32", shape=array.shape)
        if raw:
            message.raw_input_contents.append(array.tobytes())
        else:
            tensor.contents.int_contents.extend(array.ravel().tolist())
    return message


def outputs_in(response: pb.ModelInferResponse) -> dict[str, NDArray[Any]]:
    """By name."""
    return {
        output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def log_probs_in(response: pb.ModelInferResponse) -> NDArray[Any]:
    return outputs_in(response)["LOG_PROBS"]


def infer_json(arrays: Arrays, *, nested: bool = True, **fields: Any) -> dict[str, Any]:
    """The REST body, its numbers in JSON."""
    inputs = [
        {
            "name": name,
            "datatype": "INT32",
            "shape": list(array.shape),
            "data": (array if nested else array.ravel()).tolist(),
        }
        for name, array in arrays.items()
    ]
    return {"inputs": inputs, **fields}


def outputs_of_json(answer: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """By name."""
    return {output["name"]: _array(output) for output in answer["outputs"]}


def log_probs_of_json(answer: Mapping[str, Any]) -> NDArray[Any]:
    return outputs_of_json(answer)["LOG_PROBS"]


def _array(output: Mapping[str, Any]) -> NDArray[Any]:
    numbers = [-np.inf if number is None else number for number in output["data"]]
    return np.array(numbers, DTYPES[output["datatype"]]).reshape(output["shape"])
