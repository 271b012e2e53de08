"""The dense form of a request as the Open Inference Protocol's clients send it: stock clients, typed contents, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

Arrays = Mapping[str, NDArray[Any]]


def stock_inputs(arrays: Arrays, client: Any, **how: Any) -> list[Any]:
    """Inputs of tritonclient.grpc or tritonclient.http; `how` goes to set_data_from_numpy."""
    inputs = []
    for name, array in arrays.items():
        inputs.append(client.InferInput(name, list(array.shape), "INT32"))
        inputs[-1].set_data_from_numpy(array, **how)
    return inputs


def infer_message(arrays: Arrays, model: str, *, raw: bool = True) -> pb.ModelInferRequest:
    """The protobuf message, its numbers raw or typed."""
    message = pb.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        tensor = message.inputs.add(name=name, datatype="INT32", shape=array.shape)
        if raw:
            message.raw_input_contents.append(array.tobytes())
        else:
            tensor.contents.int_contents.extend(array.ravel().tolist())
    return message


def log_probs_in(response: pb.ModelInferResponse) -> NDArray[Any]:
    output = response.outputs[0]
    dtype = {"FP32": "<f4", "FP16": "<f2"}[output.datatype]
    return np.frombuffer(response.raw_output_contents[0], dtype).reshape(output.shape)


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


def log_probs_of_json(answer: Mapping[str, Any]) -> NDArray[Any]:
    output = answer["outputs"][0]
    dtype = {"FP32": np.float32, "FP16": np.float16}[output["datatype"]]
    numbers = [-np.inf if number is None else number for number in output["data"]]
    return np.array(numbers, dtype).reshape(output["shape"])
