"""The flags of `teacher serve`, by the panels of its help. Their defaults stand in the command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

_model = partial(typer.Option, rich_help_panel="Model and device")
_network = partial(typer.Option, rich_help_panel="Network")
_batching = partial(typer.Option, rich_help_panel="Batching")
_limits = partial(typer.Option, rich_help_panel="What one request may hold")
_security = partial(typer.Option, rich_help_panel="Security")
_telling = partial(typer.Option, rich_help_panel="Logs and traces")
_stopping = partial(typer.Option, rich_help_panel="Stopping")

Artifacts = Annotated[
    list[Path],
    typer.Argument(
        envvar="TEACHER_ARTIFACT",
        help="Folders of the teachers to serve, or a folder of such folders, in which teachers may come and go "
        "(in the environment: separated by colons).",
        show_default=False,
    ),
]

ModelName = Annotated[
    str | None,
    _model(
        envvar="TEACHER_MODEL_NAME",
        help="The model's name in the Open Inference Protocol; of several teachers it is their folders' names.  "
        "[default: teacher]",
    ),
]
Device = Annotated[str, _model(envvar="TEACHER_DEVICE", help="auto, cpu or cuda.")]
Dtype = Annotated[
    str,
    _model(
        envvar="TEACHER_DTYPE",
        help="Compute type: float32, bfloat16, float16 or auto (float16 on CUDA, float32 on the CPU).",
    ),
]
Compiled = Annotated[
    bool,
    _model(
        "--compile",
        envvar="TEACHER_COMPILE",
        help="Compile the layers: a slower start, faster batches. Needs a C++ compiler.",
    ),
]

GrpcAddress = Annotated[
    list[str],
    _network(
        envvar="TEACHER_GRPC_ADDRESS",
        help="HOST:PORT or unix:PATH; may be repeated (in the environment: separated by blanks). "
        "Port 0 takes a free one.",
    ),
]
HttpAddress = Annotated[
    str,
    _network(envvar="TEACHER_HTTP_ADDRESS", help="HOST:PORT of REST, health, metrics and the status page, or none."),
]
MaxConnectionAge = Annotated[
    float | None,
    _network(
        envvar="TEACHER_MAX_CONNECTION_AGE",
        min=0.1,
        help="Seconds after which clients must connect again, so that they find new replicas.",
    ),
]
MaxConcurrentStreams = Annotated[
    int, _network(envvar="TEACHER_MAX_CONCURRENT_STREAMS", min=1, help="Calls at a time on one gRPC connection.")
]
Keepalive = Annotated[
    float,
    _network(
        envvar="TEACHER_KEEPALIVE",
        min=1,
        help="Seconds of silence after which a gRPC client must show that it is still there.",
    ),
]
HttpTimeout = Annotated[
    float,
    _network(
        envvar="TEACHER_HTTP_TIMEOUT",
        min=0.1,
        help="Seconds that an HTTP client may take to send a request or to read an answer.",
    ),
]
MaxHttpRequests = Annotated[
    int, _network(envvar="TEACHER_MAX_HTTP_REQUESTS", min=1, help="HTTP requests that are answered at a time.")
]

BatchTokens = Annotated[
    int | None,
    _batching(
        envvar="TEACHER_BATCH_TOKENS",
        min=1,
        help="Row tokens computed at once.  [default: 131,072 on CUDA, 16,384 on the CPU]",
    ),
]
MaxQueueDelay = Annotated[
    float,
    _batching(
        envvar="TEACHER_MAX_QUEUE_DELAY",
        min=0,
        help="Seconds that requests wait on an idle device for others to share a batch with.",
    ),
]
BatchTimeout = Annotated[
    float,
    _batching(
        envvar="TEACHER_BATCH_TIMEOUT",
        min=0,
        help="Seconds after which a batch counts as stuck: not ready, not alive, callers are told. 0: never.",
    ),
]
ExitWhenStuck = Annotated[
    bool,
    _batching(
        "--exit-when-stuck",
        envvar="TEACHER_EXIT_WHEN_STUCK",
        help="End the process then, with status 1, for what restarts ended processes, but not unhealthy ones.",
    ),
]
QueueTokens = Annotated[int, _batching(envvar="TEACHER_QUEUE_TOKENS", min=1, help="Tokens that may wait in the queue.")]

MaxSequences = Annotated[
    int, _limits(envvar="TEACHER_MAX_SEQUENCES", min=1, help="Histories that one request may hold.")
]
MaxTokens = Annotated[
    int, _limits(envvar="TEACHER_MAX_TOKENS", min=1, help="History tokens that one request may hold.")
]
MaxPositions = Annotated[
    int, _limits(envvar="TEACHER_MAX_POSITIONS", min=1, help="Scored positions that one request may hold.")
]
MaxCandidates = Annotated[
    int, _limits(envvar="TEACHER_MAX_CANDIDATES", min=1, help="Candidates that one request may hold.")
]
MaxRowTokens = Annotated[
    int,
    _limits(
        envvar="TEACHER_MAX_ROW_TOKENS",
        min=2,
        help="Tokens that one request may make the device compute: about positions x window for long histories.",
    ),
]
MaxMessageBytes = Annotated[
    int, _limits(envvar="TEACHER_MAX_MESSAGE_BYTES", min=1, help="Bytes that one gRPC message may have.")
]

TlsCert = Annotated[
    Path | None, _security(envvar="TEACHER_TLS_CERT", help="PEM file: the server's certificate and its chain.")
]
TlsKey = Annotated[Path | None, _security(envvar="TEACHER_TLS_KEY", help="PEM file: its private key.")]
TlsClientCa = Annotated[
    Path | None,
    _security(
        envvar="TEACHER_TLS_CLIENT_CA", help="PEM file: clients must show a certificate that one of these signed."
    ),
]
TokenFile = Annotated[
    Path | None,
    _security(envvar="TEACHER_TOKEN_FILE", help="Bearer tokens, one a line: clients must show one of them."),
]
OpenMetrics = Annotated[
    bool,
    _security(
        "--open-metrics",
        envvar="TEACHER_OPEN_METRICS",
        help="Metrics and the status page need neither token nor client certificate.",
    ),
]

LogFormat = Annotated[str, _telling(envvar="TEACHER_LOG_FORMAT", help="Of the log on standard error: text or json.")]
LogLevel = Annotated[
    str,
    _telling(
        envvar="TEACHER_LOG_LEVEL",
        help="debug (every request), info (requests that failed, too), warning (slow and refused ones) or error.",
    ),
]
SlowRequest = Annotated[
    float, _telling(envvar="TEACHER_SLOW_REQUEST", min=0, help="Seconds from which a request is logged as slow.")
]
OtlpEndpoint = Annotated[
    str | None,
    _telling(
        envvar="TEACHER_OTLP_ENDPOINT",
        help="http://HOST:PORT of an OpenTelemetry collector (OTLP over gRPC) for traces; OTEL_* variables count.",
    ),
]

DrainDelay = Annotated[
    float,
    _stopping(
        envvar="TEACHER_DRAIN_DELAY",
        min=0,
        help="Seconds on SIGTERM or SIGINT in which requests are still taken, but health says not ready: "
        "balancers need them to turn to other replicas.",
    ),
]
DrainTimeout = Annotated[
    float, _stopping(envvar="TEACHER_DRAIN_TIMEOUT", min=0, help="Seconds to finish requests on SIGTERM or SIGINT.")
]
UntilStdinCloses = Annotated[
    bool,
    _stopping(
        "--until-stdin-closes",
        envvar="TEACHER_UNTIL_STDIN_CLOSES",
        help="Stop when standard input ends: a child never outlives the process that started it.",
    ),
]
