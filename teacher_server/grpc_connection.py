"""How long a gRPC connection lives and what it may hold, as channel arguments."""

from __future__ import annotations

from teacher_server.limits import Connections

HANDSHAKE_SECONDS = 10.0  # for TLS and the HTTP/2 preface
PING_SECONDS = 10.0  # that a client has to answer a keepalive ping
CLIENT_PING_SECONDS = 1.0  # clients may ping as often, idle ones too, where gRPC by itself would send them away
AGE_GRACE_SECONDS = 300.0  # for calls on a connection that has reached its age


def connection_options(connections: Connections, max_message_bytes: int) -> list[tuple[str, int]]:
    """Arguments of a gRPC server."""
    options = [
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server that gets some of the calls
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),  # bounded by the limits on candidates
        ("grpc.max_concurrent_streams", connections.max_streams),
        ("grpc.server_handshake_timeout_ms", _ms(HANDSHAKE_SECONDS)),
        # Clients that are gone without a word (half-open, stopped) are found and their connections closed.
        ("grpc.keepalive_time_ms", _ms(connections.keepalive)),
        ("grpc.keepalive_timeout_ms", _ms(PING_SECONDS)),
        ("grpc.http2.ping_timeout_ms", _ms(PING_SECONDS)),  # without it an idle connection has a minute
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(CLIENT_PING_SECONDS)),
    ]
    if connections.max_age is not None:
        options.append(("grpc.max_connection_age_ms", _ms(connections.max_age)))
        options.append(("grpc.max_connection_age_grace_ms", _ms(AGE_GRACE_SECONDS)))
    return options


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
