"""`teacher health` against real servers: ready, warming up, draining, frozen, gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.serving import RunningTeacher, serve, tiny_artifact


def health(*words: str, **env: str) -> tuple[int, str]:
    """Exit status and the one line that the command prints."""
    command = [sys.executable, "-m", "teacher_server", "health", *words]
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        command, env=os.environ | proxies | env, capture_output=True, text=True, timeout=30, check=False
    )
    (line,) = (done.stdout + done.stderr).splitlines()
    assert bool(done.stdout) == (done.returncode == 0)
    return done.returncode, line


def test_a_ready_server(teacher: RunningTeacher) -> None:
    assert teacher.http
    address = teacher.http.removeprefix("http://")
    port = address.rpartition(":")[2]
    for words, env in (
        ([teacher.http], {}),
        ([address], {}),
        ([f"{teacher.http}/"], {}),
        ([], {"TEACHER_HTTP_ADDRESS": address}),
        ([], {"TEACHER_HTTP_ADDRESS": f"0.0.0.0:{port}"}),  # as in a container
    ):
        assert health(*words, **env) == (0, "teacher: ready")
    assert health(f"{teacher.http}/livez") == (0, "teacher: alive")


@pytest.mark.slow
def test_a_server_behind_tls_client_certificates_and_tokens(tmp_path: Path) -> None:
    """As in a container: the check finds the address and the certificate where the server does."""
    authority = Authority()
    files, other = authority.issue(tmp_path / "tls"), Authority().issue(tmp_path / "other")
    tiny_artifact(tmp_path / "artifact")
    (tmp_path / "tokens").write_text("0123456789abcdef0123456789abcdef\n")
    env = {"TEACHER_TLS_CERT": str(files.certificate), "TEACHER_TLS_KEY": str(files.key)}
    env |= {"TEACHER_TLS_CLIENT_CA": str(files.ca), "TEACHER_TOKEN_FILE": str(tmp_path / "tokens")}
    with serve(tmp_path / "artifact", env=env) as running:
        assert running.http
        address = running.http.partition("://")[2]
        assert health(**env, TEACHER_HTTP_ADDRESS=address) == (0, "teacher: ready")
        assert health(address, "--tls-cert", str(files.ca)) == (0, "teacher: ready")
        status, line = health(address, "--tls-cert", str(other.certificate))
        assert (status, line[:49]) == (1, f"teacher: error: {address}: no answer in TLS: "[:49])
        assert health(f"https://{address}")[0] == 1  # the system does not know this authority
        assert health(address)[0] == 1
    status, line = health(address, "--tls-cert", str(tmp_path / "tokens"))
    assert (status, "no certificate in PEM form" in line) == (2, True)


def test_a_frozen_server(teacher: RunningTeacher) -> None:
    assert teacher.http
    teacher.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert health(teacher.http, "--timeout", "0.3") == (
            1,
            f"teacher: error: {teacher.http}: no answer: timed out",
        )
        assert time.monotonic() - started < 5
    finally:
        teacher.process.send_signal(signal.SIGCONT)
    assert health(teacher.http)[0] == 0


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b'HTTP/1.1 503 Busy\r\nContent-Length: 22\r\n\r\n{"status": "draining"}', "not ready: draining (status 503)"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]", "not ready: Not Found (status 404)"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\n\xff\xfe{", "not ready: Oh (status 500)"),
        (b"hello\r\n\r\n", "no answer in HTTP: BadStatusLine"),
        (b"", "no answer: Remote end closed connection without response"),
    ],
)
def test_what_else_may_be_there(answer: bytes, line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def reply() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert health(address) == (1, f"teacher: error: {address}: {line}")
        thread.join()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert health(address) == (1, f"teacher: error: {address}: no answer: Connection refused")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("none", "there is no HTTP to ask for health"),
        ("ftp://127.0.0.1:80", "bad URL 'ftp://127.0.0.1:80': use [http[s]://]HOST:PORT[/PATH]"),
        ("127.0.0.1", "bad URL '127.0.0.1'"),
        ("unix:/tmp/x", "bad URL 'unix:/tmp/x'"),
        ("http://[::1", "bad URL 'http://[::1'"),
    ],
)
def test_an_url_that_is_none(url: str, line: str) -> None:
    status, said = health(url)
    assert status == 2
    assert said.startswith(f"teacher: error: {line}")


def test_it_loads_nothing_heavy() -> None:
    """A check every few seconds must cost little."""
    code = "import sys, teacher_server.__main__; print({'torch', 'grpc', 'fastapi', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "set()\n"
