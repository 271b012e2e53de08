"""Certificates for tests: an authority of one's own, and files as a server or a client is given them."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme

YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
HERE = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class PemFiles:
    """A certificate with its key, and the authority that signed it."""

    certificate: Path
    key: Path
    ca: Path

    def client_context(self, trusted: Path) -> ssl.SSLContext:
        """For a client that shows this certificate and trusts that authority's servers."""
        context = ssl.create_default_context(cafile=str(trusted))
        context.load_cert_chain(self.certificate, self.key)
        return context

    def channel_credentials(self, trusted: Path) -> grpc.ChannelCredentials:
        """The same for gRPC."""
        return grpc.ssl_channel_credentials(trusted.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes())


class Authority:
    """Signs certificates, for 127.0.0.1 unless names are given; every call makes a new one."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def issue(self, folder: Path, *names: str, expired: bool = False) -> PemFiles:
        """Write a certificate's files into the folder, over what is there."""
        folder.mkdir(parents=True, exist_ok=True)
        files = PemFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
        leaf = self._ca.issue_cert(*names or HERE, not_after=YESTERDAY if expired else None)
        leaf.private_key_pem.write_to_path(str(files.key))
        files.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self._ca.cert_pem.write_to_path(str(files.ca))
        return files


def serial_of(host: str, port: int, context: ssl.SSLContext) -> str:
    """The serial number of the certificate that a server shows to a new connection."""
    import socket

    with socket.create_connection((host, port), timeout=10) as plain:
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(plain, server_hostname=host) as connection:
            found = connection.getpeercert()
            assert found is not None
            return str(found["serialNumber"])
