"""Structured logs on standard error: text for people, JSON for machines. Of requests, those that failed or were slow.

No line holds tokens of histories or secrets: an error's message quotes a number or two of the request at most.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from teacher_server.calls import current_id
from teacher_server.reports import CANCELLED, OK, Observer, RequestReport

log = logging.getLogger("teacher")

LEVEL_OF = {
    OK: logging.DEBUG,
    CANCELLED: logging.DEBUG,
    "Expired": logging.WARNING,
    "Overloaded": logging.WARNING,
    "EngineFailure": logging.ERROR,
}  # all other outcomes are mistakes of the caller's: info
LINES_A_SECOND = 5  # of requests that ended alike; how many were left out is said in the next line


def configure(log_format: str, level: str) -> None:
    """Log to standard error: this program from `level` on, libraries from warning on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE [REQUEST ID]`"""

    def format(self, record: logging.LogRecord) -> str:
        request_id = current_id()
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}"
        return line + (f" [{request_id}]" if request_id else "") + _traceback(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := current_id():
            fields["request_id"] = request_id
        if traceback := _traceback(record):
            fields["exception"] = traceback.strip()
        return json.dumps(fields | getattr(record, "fields", {}))


class RequestLog:
    """A line for a request that failed, or took `slow_s` seconds or more; for every other one at level debug."""

    def __init__(self, slow_s: float, clock: Callable[[], float] = time.monotonic, model: str = "") -> None:
        """`model`: the name of the one whose requests these are, where there are several."""
        self._slow_s, self._clock, self._model = slow_s, clock, model
        self._second = 0
        self._lines: Counter[str] = Counter()  # in this second, by outcome
        self._left_out: Counter[str] = Counter()  # since the last line, by outcome

    @property
    def observer(self) -> Observer:
        """What hears for this log."""
        return Observer(request=self.on_request)

    def on_request(self, report: RequestReport) -> None:
        """A request has ended, here in its own context."""
        level = self._level(report)
        if not log.isEnabledFor(level) or not self._has_room(report.outcome):
            return
        fields = {
            "outcome": report.outcome,
            "positions": report.positions,
            **({"model": self._model} if self._model else {}),
            **{
                f"{name}_ms": round(seconds * 1000, 3)
                for name, seconds in (
                    ("total", report.total_s),
                    ("queue", report.queue_s),
                    ("compute", report.compute_s),
                )
            },
        }
        message = f"{report.outcome}: {report.positions} positions in {fields['total_ms']} ms" + (
            f" (queue {fields['queue_ms']}, compute {fields['compute_ms']})" if report.outcome == OK else ""
        )
        if self._model:
            message = f"{self._model}: {message}"
        if report.detail:
            message += f": {report.detail}"
        if left_out := self._left_out.pop(report.outcome, 0):
            message += f" ({left_out} more ended so since the last line)"
            fields["left_out"] = left_out
        log.log(level, "%s", message, extra={"fields": fields})

    def _level(self, report: RequestReport) -> int:
        level = LEVEL_OF.get(report.outcome, logging.INFO)
        return max(level, logging.WARNING) if report.total_s >= self._slow_s else level

    def _has_room(self, outcome: str) -> bool:
        now = int(self._clock())
        if now != self._second:
            self._second = now
            self._lines.clear()
        self._lines[outcome] += 1
        if self._lines[outcome] <= LINES_A_SECOND:
            return True
        self._left_out[outcome] += 1
        return False


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(record: logging.LogRecord) -> str:
    return f"\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else ""
