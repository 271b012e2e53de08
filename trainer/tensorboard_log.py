"""Figures for TensorBoard, in event files that are written at once and by no thread."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

NAMES = {"lr": "learning_rate"}  # as the research code has it


class TensorBoardLog:
    """A run's folder of event files, one a session."""

    def __init__(self, folder: Path, resume_at: int) -> None:
        """Readers forget what earlier sessions wrote beyond the optimiser step at which the run goes on."""
        resumes = folder.exists()
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb", buffering=0)  # a kill loses nothing
        self._append(Event(file_version="brain.Event:2"))
        if resumes:
            self._append(Event(step=resume_at + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        found = [Summary.Value(tag=NAMES.get(name, name), simple_value=value) for name, value in values.items()]
        self._append(Event(step=step, summary=Summary(value=found)))

    def close(self) -> None:
        self._file.close()

    def _append(self, event: Any) -> None:
        event.wall_time = time.time()
        self._file.write(framed(event.SerializeToString()))


def framed(data: bytes) -> bytes:
    """A record as TensorFlow's files have it: length and data, each with its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))
