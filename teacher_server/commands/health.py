"""`teacher health`: one line and an exit status, for health checks of containers and for scripts.

Standard library only, so that it costs a fifth of a second; proxies of the environment are not used.
"""

from __future__ import annotations

import json
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import typer

from teacher_server.addresses import TcpAddress, parse_address
from teacher_server.errors import BadSettings, NotReady

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where one listens everywhere, one is asked here


def health(
    url: Annotated[
        str,
        typer.Argument(
            envvar="TEACHER_HTTP_ADDRESS",
            help="[http[s]://]HOST:PORT of the server's health pages, with a path if not /readyz.",
        ),
    ] = "127.0.0.1:8000",
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="TEACHER_TLS_CERT",
            help="PEM file: speak HTTPS, and only with a server that shows this certificate or one that it signed.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds to wait for the answer.")] = 3.0,
) -> None:
    """Ask a server whether it takes requests: exit status 0 if so, 1 if not or if nobody answers."""
    parts, address = _parse(url, "https" if tls_cert else "http")
    path = parts.path if parts.path not in ("", "/") else "/readyz"
    host = ANY.get(address.host, address.host)
    connection = HTTPConnection(host, address.port, timeout=timeout)
    if parts.scheme == "https":
        connection = HTTPSConnection(host, address.port, timeout=timeout, context=_context(tls_cert))
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        said = _status(response.read(10_000))
    except ssl.SSLError as error:
        raise NotReady(f"{url}: no answer in TLS: {getattr(error, 'verify_message', None) or error.reason}") from None
    except OSError as error:
        raise NotReady(f"{url}: no answer: {error.strerror or error}") from None
    except HTTPException as error:
        raise NotReady(f"{url}: no answer in HTTP: {type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise NotReady(f"{url}: not ready: {said or response.reason} (status {response.status})")
    print(f"teacher: {said or response.reason}")


def _context(certificate: Path | None) -> ssl.SSLContext:
    """Trust in the given certificate alone, whatever names it is for, or in those that the system trusts."""
    try:
        context = ssl.create_default_context(cafile=certificate)
    except OSError as error:  # an SSLError is one
        raise BadSettings(f"{certificate}: no certificate in PEM form ({error.strerror or error})") from None
    if certificate:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _parse(url: str, scheme: str) -> tuple[SplitResult, TcpAddress]:
    if url == "none":
        raise BadSettings("there is no HTTP to ask for health: ask grpc.health.v1 on the gRPC port instead")
    try:
        parts = urlsplit(url if "://" in url else f"{scheme}://{url}")
        address = parse_address(parts.netloc)
    except (ValueError, BadSettings):
        address = None
    if not isinstance(address, TcpAddress) or parts.scheme not in ("http", "https"):
        raise BadSettings(f"bad URL {url!r}: use [http[s]://]HOST:PORT[/PATH]")
    return parts, address


def _status(body: bytes) -> str:
    """The word in {"status": "ready"}, or nothing."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    return str(content.get("status", ""))[:100] if isinstance(content, dict) else ""
