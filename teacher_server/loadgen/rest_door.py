"""The Open Inference Protocol over HTTP, with binary data."""

from __future__ import annotations

import json

import httpx

from teacher_server.loadgen.doors import OPENING_SECONDS, Extent, Refused, Times, extent_of, outputs_of, tensors_of
from teacher_server.loadgen.walks import Walks
from teacher_server.rest_body import JSON_LENGTH

SEPARATOR = b"\n"  # between the length of a message's JSON and the body


class RestDoor:
    """/v2/models/MODEL/infer."""

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        self._client, self._page = client, f"/v2/models/{model}"

    async def extent(self) -> Extent:
        answer = await self._answered("GET", f"{self._page}/config", OPENING_SECONDS)
        return extent_of(answer.json()["parameters"]["grid"]["string_value"])

    def message(self, walks: Walks) -> bytes:
        tensors = tensors_of(walks)
        inputs = [
            {"name": name, "datatype": "INT32", "shape": each.shape, "parameters": {"binary_data_size": each.nbytes}}
            for name, each in tensors.items()
        ]
        outputs = [{"name": name} for name in outputs_of(walks)]
        head = json.dumps({"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}}).encode()
        return str(len(head)).encode() + SEPARATOR + head + b"".join(each.tobytes() for each in tensors.values())

    async def ask(self, message: bytes, timeout: float) -> Times:
        length, _, body = message.partition(SEPARATOR)
        headers = {JSON_LENGTH: length.decode(), "content-type": "application/octet-stream"}
        answer = await self._answered("POST", f"{self._page}/infer", timeout, body, headers)
        told = json.loads(answer.content[: int(answer.headers[JSON_LENGTH])])["parameters"]
        return told.get("queue_us", 0), told.get("compute_us", 0)

    async def close(self) -> None:
        await self._client.aclose()

    async def _answered(
        self, method: str, page: str, timeout: float, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        try:
            answer = await self._client.request(method, page, content=body, headers=headers, timeout=timeout)
        except httpx.TimeoutException as error:
            raise Refused("TIMEOUT", str(error)) from None
        except httpx.TransportError as error:
            raise Refused("UNAVAILABLE", str(error)) from None
        if answer.status_code != 200:
            raise Refused(str(answer.status_code), answer.text)
        return answer
