"""Figures for TensorBoard, in event files that are written at once and by no thread."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

NAMES = {"lr": "learning_rate"}  # as the research code has it


class TensorBoardLog:
    """A run's folder of event files, one a session."""

    def __init__(self, folder: Path, resume_at: int) -> None:
        """Readers forget what earlier sessions wrote beyond the optimiser step at which the run goes on."""
        resumes = folder.exists()
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        if resumes:
            self._write(Event(step=resume_at + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        found = [Summary.Value(tag=NAMES.get(name, name), simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=found)))

    def close(self) -> None:
        self._events.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._events.write_event(event)
        self._events.flush()
