"""The body of a REST request: read no further than the limit, decompressed, its JSON and its binary part told apart."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass

from fastapi import Request

from teacher_server.errors import InvalidRequest, TooLarge

JSON_LENGTH = "Inference-Header-Content-Length"  # header: bytes of JSON, before binary data; without it, all is JSON
MAX_JSON_BYTES = 8_388_608  # JSON is parsed in one go, about 70 MB/s, in which time nobody else is served
ANY_WRAPPER = zlib.MAX_WBITS | 32  # zlib's (deflate) or gzip's


@dataclass(frozen=True, eq=False)
class Body:
    """A request as it came."""

    json: bytes
    binary: memoryview  # the binary data of its tensors, one after the other


async def read_body(request: Request, max_bytes: int) -> Body:
    """Raises TooLarge for more than `max_bytes`, compressed or not, and InvalidRequest for what cannot be read."""
    content = await _received(request, max_bytes)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding in ("gzip", "deflate"):
        content = await asyncio.to_thread(_inflated, content, encoding, max_bytes)
    elif encoding != "identity":
        raise InvalidRequest(f"the body is encoded as {encoding!r}: use gzip, deflate or none")
    length = _json_length(request, len(content))
    if length > MAX_JSON_BYTES:
        raise TooLarge(f"the request has {length} bytes of JSON, and {MAX_JSON_BYTES} are allowed: send binary data")
    return Body(content[:length], memoryview(content)[length:])


async def _received(request: Request, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _inflated(content: bytes, encoding: str, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(ANY_WRAPPER)
    try:
        plain = inflater.decompress(content, max_bytes + 1)
    except zlib.error:
        raise InvalidRequest(f"the body is no {encoding} data") from None
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not inflater.eof or inflater.unused_data:
        raise InvalidRequest(f"the body is not one whole stream of {encoding} data")
    return plain


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request has more than the {max_bytes} bytes that are allowed: send it in smaller parts")


def _json_length(request: Request, size: int) -> int:
    text = request.headers.get(JSON_LENGTH)
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= size):
        raise InvalidRequest(f"the header {JSON_LENGTH} is {text!r}, but the body has {size} bytes")
    return int(text)
