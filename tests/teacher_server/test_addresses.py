"""Addresses as text, and what can be in the way of listening."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from teacher_server.addresses import TcpAddress, UnixAddress, bind_tcp, check_free, parse_address
from teacher_server.errors import BadSettings


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8001", TcpAddress("127.0.0.1", 8001)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("unix:/run/teacher", UnixAddress(Path("/run/teacher"))),
        ("unix:///run/teacher", UnixAddress(Path("/run/teacher"))),
        ("unix:teacher", UnixAddress(Path.cwd() / "teacher")),
    ],
)
def test_addresses_are_read(text: str, address: TcpAddress | UnixAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "8001", ":8001", "host", "host:", "host:http", "host:65536", "host:-1", "host:²", "::1:80", "a/b:1", "unix:"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadSettings, match="bad address"):
        parse_address(text)


def test_a_socket_path_must_fit_the_kernel() -> None:
    with pytest.raises(BadSettings, match="107 bytes"):
        parse_address("unix:/" + "x" * 107)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadSettings, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind_tcp(TcpAddress("127.0.0.1", port))


def test_a_host_that_is_not_here_is_named() -> None:
    with pytest.raises(BadSettings, match=r"cannot listen on 192.0.2.1:0: Cannot assign"):
        check_free(TcpAddress("192.0.2.1", 0))
    with pytest.raises(BadSettings, match=r"cannot listen on no host:0: "):
        check_free(TcpAddress("no host", 0))


def test_a_stale_socket_is_removed_and_a_served_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    address = UnixAddress(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(BadSettings, match="another process listens there"):
            check_free(address)
        assert path.exists()
    check_free(address)
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(BadSettings, match="is no socket"):
        check_free(UnixAddress(path))
    assert path.read_text() == "mine"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=f"the folder {tmp_path}/no does not exist"):
        check_free(UnixAddress(tmp_path / "no" / "socket"))
