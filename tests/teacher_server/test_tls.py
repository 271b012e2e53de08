"""TLS of a real server: who gets in, and files that change while it serves."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.errors import BadSettings
from teacher_server.settings import TlsFiles
from teacher_server.tls import ServerTls
from tests.certificates import Authority, PemFiles, serial_of
from tests.serving import RunningTeacher, serve

PAGE = "/openapi.json"  # one that is not for everybody


@dataclass(frozen=True)
class Secured:
    """A server with TLS that asks for client certificates, and all that belongs to it."""

    teacher: RunningTeacher
    unix: str
    server_ca: Authority
    client_ca: Authority
    server: PemFiles
    client: PemFiles

    @property
    def https(self) -> str:
        assert self.teacher.http is not None
        return self.teacher.http.replace("http://", "https://")

    def grpc_port(self) -> int:
        return int(self.teacher.grpc.rpartition(":")[2])


@contextmanager
def secured(artifact: Path, folder: Path) -> Iterator[Secured]:
    server_ca, client_ca = Authority(), Authority()
    server, client = server_ca.issue(folder / "server"), client_ca.issue(folder / "client")
    unix = f"unix:{folder}/socket"
    flags = ["--tls-cert", str(server.certificate), "--tls-key", str(server.key), "--tls-client-ca", str(client.ca)]
    with serve(artifact, "--grpc-address", "127.0.0.1:0", "--grpc-address", unix, *flags) as teacher:
        yield Secured(teacher, unix, server_ca, client_ca, server, client)


@pytest.fixture(scope="module")
def shared(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(artifact, tmp_path_factory.mktemp("tls")) as running:
        yield running


def described(channel: grpc.Channel) -> str:
    return teacher_pb2_grpc.TeacherServiceStub(channel).Describe(pb.DescribeRequest(), timeout=10).digest


def refused(channel: grpc.Channel) -> bool:
    try:
        described(channel)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


def test_a_known_certificate_opens_both_doors(shared: Secured) -> None:
    credentials = shared.client.channel_credentials(shared.server.ca)
    with grpc.secure_channel(shared.teacher.grpc, credentials) as channel:
        assert described(channel) == shared.teacher.digest
    with httpx.Client(base_url=shared.https, verify=shared.client.client_context(shared.server.ca)) as client:
        assert client.get("/readyz").status_code == 200
        assert client.get(PAGE).status_code == 200


def test_unix_sockets_stay_plain(shared: Secured) -> None:
    with grpc.insecure_channel(shared.unix) as channel:
        assert described(channel) == shared.teacher.digest


def test_plain_text_gets_nowhere(shared: Secured) -> None:
    with grpc.insecure_channel(shared.teacher.grpc) as channel:
        assert refused(channel)
    assert shared.teacher.http is not None
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{shared.teacher.http}/livez")


def test_without_a_certificate_only_http_health_answers(shared: Secured) -> None:
    with grpc.secure_channel(
        shared.teacher.grpc, grpc.ssl_channel_credentials(shared.server.ca.read_bytes())
    ) as channel:
        assert refused(channel)
    context = ssl.create_default_context(cafile=str(shared.server.ca))
    with httpx.Client(base_url=shared.https, verify=context) as client:
        for page in ("/livez", "/readyz", "/healthz"):
            assert client.get(page).status_code == 200
        answer = client.get(PAGE)
    assert (answer.status_code, answer.json()["error"]) == (401, "this teacher asks for a client certificate")


@pytest.mark.parametrize("kind", ["unknown", "expired"])
def test_a_bad_certificate_opens_nothing(shared: Secured, kind: str, tmp_path: Path) -> None:
    bad = Authority().issue(tmp_path) if kind == "unknown" else shared.client_ca.issue(tmp_path, expired=True)
    with grpc.secure_channel(shared.teacher.grpc, bad.channel_credentials(shared.server.ca)) as channel:
        assert refused(channel)
    with (
        httpx.Client(base_url=shared.https, verify=bad.client_context(shared.server.ca)) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/livez")


@pytest.mark.slow
def test_new_files_are_for_new_connections_and_open_ones_go_on(artifact: Path, tmp_path: Path) -> None:
    with secured(artifact, tmp_path) as it:
        http_port = int(it.https.rpartition(":")[2])

        def serials() -> set[str]:
            return {
                serial_of("127.0.0.1", port, it.client.client_context(it.server.ca))
                for port in (it.grpc_port(), http_port)
            }

        old = serials()
        credentials = it.client.channel_credentials(it.server.ca)
        with (
            grpc.secure_channel(it.teacher.grpc, credentials) as channel,
            httpx.Client(base_url=it.https, verify=it.client.client_context(it.server.ca)) as client,
        ):
            assert described(channel) == it.teacher.digest
            connection = client.get(PAGE).extensions["network_stream"]
            it.server_ca.issue(it.server.key.parent)
            new = serials()
            assert (len(old), len(new), len(old | new)) == (1, 1, 2)
            assert described(channel) == it.teacher.digest
            again = client.get(PAGE)
            assert again.status_code == 200
            assert again.extensions["network_stream"].get_extra_info("socket") is connection.get_extra_info("socket")

        it.server.certificate.write_text("no certificate at all")
        assert serials() == new
        assert serials() == new
        it.server_ca.issue(it.server.key.parent)
        assert len(serials() | new) == 2

        # The authority of the clients changes: who was known is not any more.
        Authority().issue(it.client.ca.parent / "other")
        (it.client.ca).write_bytes((it.client.ca.parent / "other" / "ca.crt").read_bytes())
        with grpc.secure_channel(it.teacher.grpc, credentials) as channel:
            assert refused(channel)
        with (
            httpx.Client(base_url=it.https, verify=it.client.client_context(it.server.ca)) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.get(PAGE)
        said = it.teacher.stop()
    broken = [line for line in said.splitlines() if "stays in use" in line]
    assert len(broken) == 1
    assert str(it.server.certificate) in broken[0]


def encrypted(key: Path) -> None:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


BAD_FILES = {
    "no certificate": (lambda f, other: f.certificate.unlink(), "--tls-cert: .*tls.crt cannot be read .No such file"),
    "no key": (lambda f, other: f.key.unlink(), "--tls-key: .*tls.key cannot be read .No such file"),
    "a key for a certificate": (lambda f, other: f.certificate.write_bytes(f.key.read_bytes()), "are no PEM certifi"),
    "another key": (lambda f, other: f.key.write_bytes(other.key.read_bytes()), "key values mismatch"),
    "an encrypted key": (lambda f, other: encrypted(f.key), "the key is encrypted"),
    "an empty client CA": (lambda f, other: f.ca.write_text(""), "--tls-client-ca .*ca.crt holds no PEM certificate"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_files_that_cannot_work_are_refused_at_the_start(kind: str, tmp_path: Path) -> None:
    files, other = Authority().issue(tmp_path / "it"), Authority().issue(tmp_path / "other")
    spoil, message = BAD_FILES[kind]
    spoil(files, other)
    started = time.monotonic()
    with pytest.raises(BadSettings, match=message) as caught:
        ServerTls(TlsFiles(files.certificate, files.key, files.ca))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5  # nothing asks for a passphrase
