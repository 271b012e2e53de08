"""A client's way to a served teacher: its address, TLS, a token. For the commands that ask one."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from teacher_server.addresses import UnixAddress, parse_address
from teacher_server.errors import BadSettings
from teacher_server.files import reason

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
OWN_CONNECTION = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
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
        target, credentials = self._way(address)
        if credentials is None:
            return grpc.insecure_channel(target, options=OPTIONS)
        return grpc.secure_channel(target, credentials, options=OPTIONS)

    def aio_channel(self, address: str) -> grpc.aio.Channel:
        """The same for the running event loop, and with a connection that no other channel shares."""
        target, credentials = self._way(address)
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=OWN_CONNECTION)
        return grpc.aio.secure_channel(target, credentials, options=OWN_CONNECTION)

    def _way(self, address: str) -> tuple[str, grpc.ChannelCredentials | None]:
        """What gRPC calls the address, and the credentials for TLS. Raises BadSettings."""
        match = re.fullmatch(r"(grpc://|grpcs://|grpc\+(?=unix:))?([^/].*)", address)
        if not match or "://" in match[2]:
            raise BadSettings(f"bad address {address!r}: use {FORMS}")
        parsed = parse_address(match[2])
        if match[1] != "grpcs://":
            return str(parsed), None
        if isinstance(parsed, UnixAddress):
            raise BadSettings(f"bad address {address!r}: a Unix socket is plain; leave out grpcs://")
        return str(parsed), self._credentials()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        if self.token_file is None:
            return ()
        lines = (line.strip() for line in _read(self.token_file).decode("ascii", "replace").splitlines())
        token = next((line for line in lines if line and not line.startswith("#")), None)
        if token is None or not token.isascii():
            raise BadSettings(f"{self.token_file} holds no token")
        return (("authorization", f"Bearer {token}"),)

    def tls_context(self) -> ssl.SSLContext:
        """The same trust and certificate for HTTPS."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise BadSettings(f"--ca, --client-cert or --client-key cannot be used ({error})") from None
        return context

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
