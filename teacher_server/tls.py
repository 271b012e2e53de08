"""TLS by files, for gRPC and HTTP alike. Every new connection is judged by the files as they are at that moment."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from teacher_server.errors import BadSettings
from teacher_server.files import reason
from teacher_server.settings import TlsFiles
from teacher_server.watched import Watched


@dataclass(frozen=True, eq=False)
class _Loaded:
    """The files' content in both forms that are needed; OpenSSL has checked that the parts belong together."""

    for_grpc: grpc.ServerCertificateConfiguration
    for_http: ssl.SSLContext


class ServerTls:
    """The server's side of TLS. Raises BadSettings for files that cannot be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._loaded = Watched(files.paths(), lambda: _load(files))

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients must show one."""
        return self._files.client_ca is not None

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`. With a client CA no call is possible without a certificate, health included."""
        initial = self._loaded.value().for_grpc
        return grpc.dynamic_ssl_server_credentials(initial, self._grpc_news(initial), self.asks_for_certificates)

    def http_context(self) -> ssl.SSLContext:
        """For an HTTP listener. A client may come without a certificate, for health; one with a bad one may not.

        The listener keeps one context for ever; it hands each new connection over to the newest.
        """
        context = _context(self._files)

        def to_the_newest(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = self._loaded.value().for_http

        context.sni_callback = to_the_newest  # called without a server name, too
        return context

    def _grpc_news(
        self, told: grpc.ServerCertificateConfiguration
    ) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """What gRPC asks before each handshake: a new configuration, or None for no change."""

        def news() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            newest = self._loaded.value().for_grpc
            if newest is told:
                return None
            told = newest
            return newest

        return news


def _load(files: TlsFiles) -> _Loaded:
    certificate, key = _read(files.certificate, "--tls-cert"), _read(files.key, "--tls-key")
    client_ca = _read(files.client_ca, "--tls-client-ca") if files.client_ca else None
    return _Loaded(grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca), _context(files))


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{flag}: {path} cannot be read ({reason(error)})") from None


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # No resumption: whoever connects again is judged again, by the authorities of that moment.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise BadSettings(
            f"--tls-cert {files.certificate} and --tls-key {files.key} are no PEM certificate and its key without a "
            f"passphrase ({reason(error)})"
        ) from None
    if files.client_ca:
        context.verify_mode = ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise BadSettings(f"--tls-client-ca {files.client_ca} holds no PEM certificate ({reason(error)})") from None
    return context


def _no_passphrase() -> str:
    """In place of OpenSSL's own question on the terminal."""
    raise ValueError("the key is encrypted")
