"""`teacher serve`: flags and TEACHER_* variables become one Settings."""

from __future__ import annotations

from pathlib import Path

from teacher_server.addresses import TcpAddress, parse_address
from teacher_server.commands import serve_flags as flag
from teacher_server.errors import BadSettings
from teacher_server.limits import Connections, Limits
from teacher_server.settings import Security, Settings, Telling, TlsFiles

_LIMITS, _CONNECTIONS, _TELLING = Limits(), Connections(), Telling()


def serve(
    artifact: flag.Artifacts,
    model_name: flag.ModelName = None,
    device: flag.Device = "auto",
    dtype: flag.Dtype = "auto",
    compiled: flag.Compiled = False,
    grpc_address: flag.GrpcAddress = ["127.0.0.1:8001"],  # noqa: B006
    http_address: flag.HttpAddress = "127.0.0.1:8000",
    max_connection_age: flag.MaxConnectionAge = None,
    max_concurrent_streams: flag.MaxConcurrentStreams = _CONNECTIONS.max_streams,
    keepalive: flag.Keepalive = _CONNECTIONS.keepalive,
    http_timeout: flag.HttpTimeout = _CONNECTIONS.http_timeout,
    max_http_requests: flag.MaxHttpRequests = _CONNECTIONS.max_http_requests,
    batch_tokens: flag.BatchTokens = None,
    max_queue_delay: flag.MaxQueueDelay = 0.0,
    batch_timeout: flag.BatchTimeout = 300.0,
    exit_when_stuck: flag.ExitWhenStuck = False,
    queue_tokens: flag.QueueTokens = 1_048_576,
    max_sequences: flag.MaxSequences = _LIMITS.max_sequences,
    max_tokens: flag.MaxTokens = _LIMITS.max_tokens,
    max_positions: flag.MaxPositions = _LIMITS.max_positions,
    max_candidates: flag.MaxCandidates = _LIMITS.max_candidates,
    max_row_tokens: flag.MaxRowTokens = _LIMITS.max_row_tokens,
    max_message_bytes: flag.MaxMessageBytes = _LIMITS.max_message_bytes,
    tls_cert: flag.TlsCert = None,
    tls_key: flag.TlsKey = None,
    tls_client_ca: flag.TlsClientCa = None,
    token_file: flag.TokenFile = None,
    open_metrics: flag.OpenMetrics = False,
    log_format: flag.LogFormat = _TELLING.log_format,
    log_level: flag.LogLevel = _TELLING.log_level,
    slow_request: flag.SlowRequest = _TELLING.slow_request,
    otlp_endpoint: flag.OtlpEndpoint = None,
    drain_delay: flag.DrainDelay = 0.0,
    drain_timeout: flag.DrainTimeout = 30.0,
    until_stdin_closes: flag.UntilStdinCloses = False,
) -> None:
    """Serve teachers over gRPC, with health pages over HTTP, until SIGTERM or SIGINT."""
    from teacher_server.serve import run  # torch and grpc load only for the command that needs them

    limits = Limits(max_sequences, max_tokens, max_positions, max_candidates, max_row_tokens, max_message_bytes)
    run(
        Settings(
            artifacts=tuple(artifact),
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
