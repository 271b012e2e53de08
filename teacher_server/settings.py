"""What `teacher serve` can be told, as one frozen record: flags, or environment variables TEACHER_*."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from teacher_server.addresses import Address, TcpAddress
from teacher_server.errors import BadSettings
from teacher_server.limits import Connections, Limits

LOG_FORMATS = ("text", "json")
MODEL_NAME = r"[A-Za-z0-9._-]+"
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With `client_ca`, clients must show a certificate that one of its authorities has signed."""

    certificate: Path  # the server's own, followed by its intermediates
    key: Path  # without a passphrase
    client_ca: Path | None

    def paths(self) -> tuple[Path, ...]:
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))


@dataclass(frozen=True)
class Security:
    """Who may ask, and who may listen."""

    tls: TlsFiles | None = None  # None: plain text
    token_file: Path | None = None  # None: whoever reaches the port
    open_metrics: bool = False  # metrics and the status page need neither token nor client certificate


@dataclass(frozen=True)
class Telling:
    """What a server says of its requests, and where."""

    log_format: str = "text"  # or json
    log_level: str = "info"  # debug, info, warning or error
    slow_request: float = 10.0  # seconds from which an answered request is worth a line
    otlp_endpoint: str | None = None  # of a collector for traces; None: what OTEL_* says, or no traces

    def __post_init__(self) -> None:
        for name, value, known in (
            ("--log-format", self.log_format, LOG_FORMATS),
            ("--log-level", self.log_level, LOG_LEVELS),
        ):
            if value not in known:
                raise BadSettings(f"unknown {name} {value!r}: use {', '.join(known)}")


@dataclass(frozen=True)
class Settings:
    """A server's settings. Times are seconds."""

    artifacts: tuple[Path, ...]  # folders of teachers, and folders of such folders
    grpc_addresses: tuple[Address, ...]
    http_address: TcpAddress | None  # None: no HTTP
    model_name: str | None  # of a single teacher, in the Open Inference Protocol
    device: str  # auto, cpu or cuda
    dtype: str  # auto, float32, bfloat16 or float16
    batch_tokens: int | None  # row tokens that the device computes at once; None: what suits the device
    compile: bool  # the layers, for batches of few sizes
    max_queue_delay: float  # that works wait on an idle device for others to share a batch with
    batch_timeout: float | None  # after which a batch counts as stuck; None: never
    exit_when_stuck: bool  # instead of waiting for the batch
    queue_tokens: int  # tokens that may wait
    limits: Limits
    drain_delay: float  # between no longer being ready and refusing requests, when the server stops
    drain_timeout: float  # that requests have to finish when the server stops
    connections: Connections
    security: Security
    telling: Telling
    until_stdin_closes: bool

    def __post_init__(self) -> None:
        if self.model_name is not None and not re.fullmatch(MODEL_NAME, self.model_name):
            raise BadSettings(f"bad --model-name {self.model_name!r}: use letters, digits and ._-")
        if not self.grpc_addresses:
            raise BadSettings("no gRPC address: give --grpc-address HOST:PORT or unix:PATH")
        if len(set(self.grpc_addresses)) < len(self.grpc_addresses):
            raise BadSettings("the same --grpc-address is given twice")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All that the server listens on."""
        return (*self.grpc_addresses, *([self.http_address] if self.http_address else []))
