"""How the trainer reaches a teacher: in plain text or by TLS, with or without a token. The environment names the files.

| variable | file |
|---|---|
| `TRAINER_TEACHER_CA` | PEM: the authorities that may sign the teacher's certificate; unset: the public ones |
| `TRAINER_TEACHER_CERT`, `TRAINER_TEACHER_KEY` | PEM: the certificate to show, and its key |
| `TRAINER_TEACHER_TOKEN_FILE` | a bearer token, on the first line that is neither blank nor begins with # |
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import grpc

from trainer.errors import BadInput
from trainer.teacher.places import Place

Metadata = tuple[tuple[str, str], ...]
MAX_MESSAGE_BYTES = 256 << 20
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),  # a teacher that was away for an hour is found within seconds
)


class Access:
    """What an address needs; the default is plain text without a token, as on a Unix socket of one's own."""

    def __init__(self, credentials: grpc.ChannelCredentials | None = None, token_file: Path | None = None) -> None:
        """Raises BadInput for a token file without a token."""
        self.credentials, self._token_file = credentials, token_file
        self._token = _token(token_file) if token_file else None

    def channel(self, place: Place) -> grpc.Channel:
        """A channel to a place. What shows a certificate there must be who the place's name says."""
        options: list[tuple[str, str | int]] = [*CHANNEL_OPTIONS]
        if place.name:
            host = place.name.rpartition(":")[0]
            options += [("grpc.default_authority", place.name), ("grpc.enable_http_proxy", 0)]
            options += [("grpc.ssl_target_name_override", host)] * (self.credentials is not None)
        if self.credentials is None:
            return grpc.insecure_channel(place.target, options=options)
        return grpc.secure_channel(place.target, self.credentials, options=options)

    def metadata(self) -> Metadata:
        """What goes with every call. The token's file is read anew, so that a token may change while one trains."""
        if self._token_file is None:
            return ()
        with contextlib.suppress(BadInput):  # it is being replaced: the one before will do for now
            self._token = _token(self._token_file)
        return (("authorization", f"Bearer {self._token}"),)


def access_from_environment(encrypted: bool) -> Access:
    """What the variables above name. Raises BadInput, which names variable and file."""
    ca, certificate, key, token = (_file(f"TRAINER_TEACHER_{name}") for name in ("CA", "CERT", "KEY", "TOKEN_FILE"))
    if not encrypted:
        return Access(None, token)
    if (certificate is None) != (key is None):
        raise BadInput("TRAINER_TEACHER_CERT and TRAINER_TEACHER_KEY go together: set both or none")
    return Access(grpc.ssl_channel_credentials(*(_content(file) for file in (ca, key, certificate))), token)


def _file(variable: str) -> Path | None:
    named = os.environ.get(variable)
    if not named:
        return None
    if not Path(named).is_file():
        raise BadInput(f"{variable}: there is no file {named}")
    return Path(named)


def _content(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    if b"-----BEGIN " not in content:
        raise BadInput(f"{file}: is no PEM file")
    return content


def _token(file: Path) -> str:
    try:
        lines = [line.strip() for line in file.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read as a token file ({getattr(error, 'strerror', 'not ASCII')})") from None
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise BadInput(f"{file}: holds no token")
    return tokens[0]
