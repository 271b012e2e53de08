"""Where a server listens: HOST:PORT or unix:PATH. Free ports and stale sockets are settled here, before gRPC binds."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from teacher_server.errors import BadSettings

UNIX_PATH_BYTES = 107  # what the kernel's socket address holds, without the closing zero


@dataclass(frozen=True)
class TcpAddress:
    """A host name or IP number and a port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """A Unix socket's file."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`. Raises BadSettings for anything else."""
    if text.startswith("unix:"):
        return _parse_unix(text)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or "/" in host:
        colon = ""
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise BadSettings(f"bad address {text!r}: use HOST:PORT (port 0..65535) or unix:PATH")
    return TcpAddress(host, int(port))


def is_public(address: Address) -> bool:
    """Whether what is sent there may cross a network. A name other than localhost may be any machine's."""
    if isinstance(address, UnixAddress) or address.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return True


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if path.startswith("//"):
        path = path[2:]
    if not path:
        raise BadSettings(f"bad address {text!r}: a path must follow unix:")
    path = str(Path(path).absolute())
    if len(path.encode()) > UNIX_PATH_BYTES:
        raise BadSettings(f"bad address {text!r}: a socket's path may have {UNIX_PATH_BYTES} bytes, not more")
    return UnixAddress(Path(path))


def bind_tcp(address: TcpAddress) -> socket.socket:
    """A bound TCP socket. Raises BadSettings with the system's reason when the address cannot be had."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BadSettings(f"cannot listen on {address}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise BadSettings(f"cannot listen on {address}: {error.strerror or error}") from None
    return bound


def check_free(address: Address) -> None:
    """Raise BadSettings, in the system's words, unless gRPC (whose own reason is vague) can bind here.

    A socket file that no process serves any more is removed.
    """
    if isinstance(address, TcpAddress):
        bind_tcp(address).close()
    else:
        _check_free_path(address)


def _check_free_path(address: UnixAddress) -> None:
    path = address.path
    if not path.parent.is_dir():
        raise BadSettings(f"cannot listen on {address}: the folder {path.parent} does not exist")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadSettings(f"cannot listen on {address}: the file exists and is no socket")
        if _is_served(path):
            raise BadSettings(f"cannot listen on {address}: another process listens there")
        path.unlink()
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(path))
        except OSError as error:
            raise BadSettings(f"cannot listen on {address}: {error.strerror or error}") from None
    path.unlink()


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True
