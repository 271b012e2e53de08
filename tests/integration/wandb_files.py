"""Reads what W&B keeps of an offline run: a log of protobuf records, framed as LevelDB frames its own."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Session:
    """One session of a run, as W&B would send it."""

    run_id: str
    project: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)  # by `_step`
    exit_code: int | None = None
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files' contents, by artifact and name


def sessions(run: Path) -> list[Session]:
    """All offline sessions of a run folder, the oldest first."""
    return [read_session(file) for file in sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))]


def read_session(file: Path) -> Session:
    session = Session(file.stem.removeprefix("run-"))  # the file is all there is of a run that was killed at once
    for data in records(file.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            assert session.run_id == record.run.run_id
            session.project = record.run.project
            session.name, session.tags = record.run.display_name, list(record.run.tags)
            session.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            session.rows.append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
        elif kind == "artifact":
            files = record.artifact.manifest.contents
            session.artifacts[record.artifact.name] = {each.path: Path(each.local_path).read_bytes() for each in files}
        elif kind == "exit":
            session.exit_code = record.exit.exit_code
    return session


def records(content: bytes) -> Iterator[bytes]:
    """The records' bytes; a record that does not fit into a block is in several pieces."""
    assert content[:4] == b":W&B"
    at, pieces = 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # no room for a frame: the block's rest is empty
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        pieces += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            yield pieces
            pieces = b""
