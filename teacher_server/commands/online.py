"""`teacher serve` and `teacher score`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from teacher_server.addresses import TcpAddress, parse_address
from teacher_server.commands.client_flags import Ca, ClientCert, ClientKey, TokenFile
from teacher_server.errors import BadSettings, InvalidRequest
from teacher_server.limits import Connections, Limits
from teacher_server.settings import Security, Settings, Telling, TlsFiles

_LIMITS, _CONNECTIONS, _TELLING = Limits(), Connections(), Telling()


def serve(
    artifact: Annotated[Path, typer.Argument(envvar="TEACHER_ARTIFACT", help="Folder of the teacher to serve.")],
    grpc_address: Annotated[
        list[str],
        typer.Option(
            envvar="TEACHER_GRPC_ADDRESS",
            help="HOST:PORT or unix:PATH; may be repeated (in the environment: separated by blanks). "
            "Port 0 takes a free one.",
        ),
    ] = ["127.0.0.1:8001"],  # noqa: B006
    http_address: Annotated[
        str, typer.Option(envvar="TEACHER_HTTP_ADDRESS", help="HOST:PORT of the health pages, or none.")
    ] = "127.0.0.1:8000",
    model_name: Annotated[
        str, typer.Option(envvar="TEACHER_MODEL_NAME", help="The model's name in the Open Inference Protocol.")
    ] = "teacher",
    device: Annotated[str, typer.Option(envvar="TEACHER_DEVICE", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            envvar="TEACHER_DTYPE",
            help="Compute type: float32, bfloat16, float16 or auto (float16 on CUDA, float32 on the CPU).",
        ),
    ] = "auto",
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            envvar="TEACHER_BATCH_TOKENS",
            min=1,
            help="Row tokens computed at once.  [default: 131,072 on CUDA, 16,384 on the CPU]",
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            envvar="TEACHER_COMPILE",
            help="Compile the layers, on CUDA with graphs: a slower start, faster batches. Needs a C++ compiler.",
        ),
    ] = False,
    max_queue_delay: Annotated[
        float,
        typer.Option(
            envvar="TEACHER_MAX_QUEUE_DELAY",
            min=0,
            help="Seconds that requests wait on an idle device for others to share a batch with.",
        ),
    ] = 0.0,
    batch_timeout: Annotated[
        float,
        typer.Option(
            envvar="TEACHER_BATCH_TIMEOUT",
            min=0,
            help="Seconds after which a batch counts as stuck: not ready, not alive, callers are told. 0: never.",
        ),
    ] = 300.0,
    exit_when_stuck: Annotated[
        bool,
        typer.Option(
            "--exit-when-stuck",
            envvar="TEACHER_EXIT_WHEN_STUCK",
            help="End the process then, with status 1, for what restarts ended processes, but not unhealthy ones.",
        ),
    ] = False,
    queue_tokens: Annotated[
        int, typer.Option(envvar="TEACHER_QUEUE_TOKENS", min=1, help="Tokens that may wait in the queue.")
    ] = 1_048_576,
    max_sequences: Annotated[
        int, typer.Option(envvar="TEACHER_MAX_SEQUENCES", min=1, help="Histories that one request may hold.")
    ] = _LIMITS.max_sequences,
    max_tokens: Annotated[
        int, typer.Option(envvar="TEACHER_MAX_TOKENS", min=1, help="History tokens that one request may hold.")
    ] = _LIMITS.max_tokens,
    max_positions: Annotated[
        int, typer.Option(envvar="TEACHER_MAX_POSITIONS", min=1, help="Scored positions that one request may hold.")
    ] = _LIMITS.max_positions,
    max_candidates: Annotated[
        int, typer.Option(envvar="TEACHER_MAX_CANDIDATES", min=1, help="Candidates that one request may hold.")
    ] = _LIMITS.max_candidates,
    max_row_tokens: Annotated[
        int,
        typer.Option(
            envvar="TEACHER_MAX_ROW_TOKENS",
            min=2,
            help="Tokens that one request may make the device compute: about positions x window for long histories.",
        ),
    ] = _LIMITS.max_row_tokens,
    max_message_bytes: Annotated[
        int, typer.Option(envvar="TEACHER_MAX_MESSAGE_BYTES", min=1, help="Bytes that one gRPC message may have.")
    ] = _LIMITS.max_message_bytes,
    drain_delay: Annotated[
        float,
        typer.Option(
            envvar="TEACHER_DRAIN_DELAY",
            min=0,
            help="Seconds on SIGTERM or SIGINT in which requests are still taken, but health says not ready: "
            "balancers need them to turn to other replicas.",
        ),
    ] = 0.0,
    drain_timeout: Annotated[
        float,
        typer.Option(envvar="TEACHER_DRAIN_TIMEOUT", min=0, help="Seconds to finish requests on SIGTERM or SIGINT."),
    ] = 30.0,
    max_connection_age: Annotated[
        float | None,
        typer.Option(
            envvar="TEACHER_MAX_CONNECTION_AGE",
            min=0.1,
            help="Seconds after which clients must connect again, so that they find new replicas.",
        ),
    ] = None,
    max_concurrent_streams: Annotated[
        int,
        typer.Option(envvar="TEACHER_MAX_CONCURRENT_STREAMS", min=1, help="Calls at a time on one gRPC connection."),
    ] = _CONNECTIONS.max_streams,
    keepalive: Annotated[
        float,
        typer.Option(
            envvar="TEACHER_KEEPALIVE",
            min=1,
            help="Seconds of silence after which a gRPC client must show that it is still there.",
        ),
    ] = _CONNECTIONS.keepalive,
    http_timeout: Annotated[
        float,
        typer.Option(
            envvar="TEACHER_HTTP_TIMEOUT",
            min=0.1,
            help="Seconds that an HTTP client may take to send a request or to read an answer.",
        ),
    ] = _CONNECTIONS.http_timeout,
    max_http_requests: Annotated[
        int, typer.Option(envvar="TEACHER_MAX_HTTP_REQUESTS", min=1, help="HTTP requests that are answered at a time.")
    ] = _CONNECTIONS.max_http_requests,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="TEACHER_TLS_CERT", help="PEM file: the server's certificate and its chain.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(envvar="TEACHER_TLS_KEY", help="PEM file: its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="TEACHER_TLS_CLIENT_CA", help="PEM file: clients must show a certificate that one of these signed."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="TEACHER_TOKEN_FILE", help="Bearer tokens, one a line: clients must show one of them."),
    ] = None,
    open_metrics: Annotated[
        bool,
        typer.Option(
            "--open-metrics",
            envvar="TEACHER_OPEN_METRICS",
            help="Metrics and the status page need neither token nor client certificate.",
        ),
    ] = False,
    log_format: Annotated[
        str, typer.Option(envvar="TEACHER_LOG_FORMAT", help="Of the log on standard error: text or json.")
    ] = _TELLING.log_format,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="TEACHER_LOG_LEVEL",
            help="debug (every request), info (requests that failed, too), warning (slow and refused ones) or error.",
        ),
    ] = _TELLING.log_level,
    slow_request: Annotated[
        float,
        typer.Option(envvar="TEACHER_SLOW_REQUEST", min=0, help="Seconds from which a request is logged as slow."),
    ] = _TELLING.slow_request,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar="TEACHER_OTLP_ENDPOINT",
            help="http://HOST:PORT of an OpenTelemetry collector (OTLP over gRPC) for traces; OTEL_* variables count.",
        ),
    ] = None,
    until_stdin_closes: Annotated[
        bool,
        typer.Option(
            "--until-stdin-closes",
            envvar="TEACHER_UNTIL_STDIN_CLOSES",
            help="Stop when standard input ends: a child never outlives the process that started it.",
        ),
    ] = False,
) -> None:
    """Serve a teacher over gRPC, with health pages over HTTP, until SIGTERM or SIGINT."""
    from teacher_server.serve import run  # torch and grpc load only for the command that needs them

    limits = Limits(max_sequences, max_tokens, max_positions, max_candidates, max_row_tokens, max_message_bytes)
    run(
        Settings(
            artifact=artifact,
            grpc_addresses=tuple(parse_address(text) for text in grpc_address),
            http_address=_http_address(http_address),
            model_name=model_name,
            device=device,
            dtype=dtype,
            batch_tokens=batch_tokens,
            compile=compiled,
            max_queue_delay=max_queue_delay,
            batch_timeout=batch_timeout or None,
            exit_when_stuck=exit_when_stuck,
            queue_tokens=queue_tokens,
            limits=limits,
            drain_delay=drain_delay,
            drain_timeout=drain_timeout,
            connections=Connections(
                max_connection_age, max_concurrent_streams, keepalive, http_timeout, max_http_requests
            ),
            security=Security(_tls_files(tls_cert, tls_key, tls_client_ca), token_file, open_metrics),
            telling=Telling(log_format, log_level, slow_request, otlp_endpoint),
            until_stdin_closes=until_stdin_closes,
        )
    )


def score(
    address: Annotated[str, typer.Argument(help="grpc[s]://HOST:PORT, HOST:PORT or unix:PATH.")],
    request: Annotated[typer.FileText, typer.Argument(help="JSON file; - is standard input.")] = "-",  # type: ignore[assignment]
    ca: Ca = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    token_file: TokenFile = None,
) -> None:
    """Ask a served teacher for log-probabilities: {"histories": [[1, 2]], "candidates": [[[3, 4]]], "window": 0}."""
    from teacher_server.channel import ClientFiles
    from teacher_server.client import score_address

    try:
        content = json.load(request)
    except ValueError as error:
        raise InvalidRequest(f"{request.name}: not valid JSON: {error}") from None
    print(json.dumps(score_address(address, content, ClientFiles(ca, client_cert, client_key, token_file))))


def _http_address(text: str) -> TcpAddress | None:
    if text == "none":
        return None
    address = parse_address(text)
    if not isinstance(address, TcpAddress):
        raise BadSettings(f"bad HTTP address {text!r}: use HOST:PORT or none")
    return address


def _tls_files(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    if certificate and key:
        return TlsFiles(certificate, key, client_ca)
    if certificate or key or client_ca:
        raise BadSettings("TLS needs both --tls-cert and --tls-key")
    return None
