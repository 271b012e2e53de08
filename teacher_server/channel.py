"""A client's way to a served teacher: its address, TLS, a token. For the commands that ask one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import grpc

from teacher_server.addresses import UnixAddress, parse_address
from teacher_server.errors import BadSettings
from teacher_server.files import reason

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
FORMS = "grpc://HOST:PORT, grpcs://HOST:PORT (TLS), HOST:PORT or unix:PATH"


@dataclass(frozen=True)
class ClientFiles:
    """What a client shows and trusts. Raises BadSettings for files that cannot be used, when they are used."""

    ca: Path | None = None  # PEM: who may sign the server's certificate; None: the public authorities
    certificate: Path | None = None  # PEM, with its key: what the client shows
    key: Path | None = None
    token_file: Path | None = None  # its first line that is neither blank nor a comment

    def channel(self, address: str) -> grpc.Channel:
        """A channel to `[grpc://]HOST:PORT`, `grpcs://HOST:PORT` or `[grpc+]unix:PATH`."""
        match = re.fullmatch(r"(grpc://|grpcs://|grpc\+(?=unix:))?([^/].*)", address)
        if not match or "://" in match[2]:
            raise BadSettings(f"bad address {address!r}: use {FORMS}")
        parsed = parse_address(match[2])
        if match[1] != "grpcs://":
            return grpc.insecure_channel(str(parsed), options=OPTIONS)
        if isinstance(parsed, UnixAddress):
            raise BadSettings(f"bad address {address!r}: a Unix socket is plain; leave out grpcs://")
        return grpc.secure_channel(str(parsed), self._credentials(), options=OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        if self.token_file is None:
            return ()
        lines = (line.strip() for line in _read(self.token_file).decode("ascii", "replace").splitlines())
        token = next((line for line in lines if line and not line.startswith("#")), None)
        if token is None or not token.isascii():
            raise BadSettings(f"{self.token_file} holds no token")
        return (("authorization", f"Bearer {token}"),)

    def _credentials(self) -> grpc.ChannelCredentials:
        if (self.certificate is None) != (self.key is None):
            raise BadSettings("--client-cert and --client-key go together: give both or none")
        ca, key, certificate = (_pem(file) if file else None for file in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _pem(file: Path) -> bytes:
    content = _read(file)
    if b"-----BEGIN " not in content:
        raise BadSettings(f"{file} is no PEM file")
    return content


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadSettings(f"{file} cannot be read ({reason(error)})") from None
