"""Bearer tokens: the file, and a real server's doors with no token, a wrong one and a right one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.addresses import TcpAddress, UnixAddress
from teacher_server.errors import BadSettings, Unauthenticated
from teacher_server.http_guard import METRICS_PAGES
from teacher_server.limits import Limits
from teacher_server.security import Access, BearerTokens, access_of
from teacher_server.settings import Security, TlsFiles
from tests.certificates import Authority
from tests.serving import RunningTeacher, serve, tiny_artifact

ALICE, BOB, MALLORY = "alice-" + "a" * 26, "bob/" + "b" * 40 + "==", "mallory-" + "m" * 24
Metadata = list[tuple[str, str]]


def bearer(token: str) -> Metadata:
    return [("authorization", f"Bearer {token}")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# of the training jobs\n{ALICE}\n\n  {BOB}  \n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("header", [f"Bearer {ALICE}", f"bearer {BOB}", f"BEARER  {ALICE} "])
def test_good_headers(file: Path, header: str) -> None:
    BearerTokens(file).check([header])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [ALICE],
        [f"Basic {ALICE}"],
        [f"Bearer {MALLORY}"],
        [f"Bearer {ALICE[:-1]}"],
        [f"Bearer {ALICE}a"],
        [f"Bearer {ALICE} {BOB}"],
        [f"Bearer {ALICE.upper()}"],
        ["Bearer # of the training jobs"],
        ["Bearer \u00e4\u00f6\u00fc"],
        [f"Bearer {ALICE}", f"Bearer {BOB}"],
        [f"Bearer {MALLORY}", f"Bearer {ALICE}"],
    ],
)
def test_headers_that_open_nothing(file: Path, headers: list[str]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        BearerTokens(file).check(headers)
    assert not any(header and header in str(caught.value) for header in headers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no token"),
        ("# nothing\n\n", "holds no token"),
        (f"{ALICE}\nshort\n", "tokens:2: a token has at least 16"),
        (f"\n{ALICE[:16]} {BOB}\n", "tokens:2: a token has at least 16"),
        (f"{ALICE}\n\u00e4{BOB}", "it holds more than plain letters"),
    ],
)
def test_files_that_cannot_work_are_one_line_without_a_token(file: Path, content: str, message: str) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadSettings, match=message) as caught:
        BearerTokens(file)
    said = str(caught.value)
    assert "\n" not in said
    assert not any(word in said for word in content.split() if len(word) > 4 and word != "nothing")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"none cannot be read \(No such file"):
        BearerTokens(tmp_path / "none")


def test_a_file_that_everybody_can_read_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    BearerTokens(file)
    assert caplog.messages == []
    file.chmod(0o644)
    BearerTokens(file)
    assert len(caplog.messages) == 1
    assert "chmod o-r" in caplog.messages[0]


LOOPBACK = (TcpAddress("127.0.0.1", 1), TcpAddress("::1", 2), TcpAddress("localhost", 3), UnixAddress(Path("/s")))


@pytest.mark.parametrize(
    ("more", "tls", "warned"),
    [
        ((), False, ""),
        ((TcpAddress("127.8.9.1", 1),), False, ""),
        ((TcpAddress("0.0.0.0", 4), TcpAddress("gpu7", 5)), False, "to 0.0.0.0:4, gpu7:5 in plain text"),
        ((TcpAddress("::", 6),), False, "to [::]:6 in plain text"),
        ((TcpAddress("0.0.0.0", 4), TcpAddress("::", 6)), True, ""),
    ],
)
def test_tokens_in_plain_text_over_a_network_are_warned_of(
    file: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    more: tuple[TcpAddress, ...],
    tls: bool,
    warned: str,
) -> None:
    pem = Authority().issue(tmp_path)
    security = Security(TlsFiles(pem.certificate, pem.key, None) if tls else None, file)
    with caplog.at_level(logging.WARNING):
        access = access_of(security, LOOPBACK + more)
    assert isinstance(access, Access)
    assert len(caplog.messages) == bool(warned)
    assert warned in "".join(caplog.messages)


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"{ALICE}\n{BOB}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, token_file: Path) -> Iterator[RunningTeacher]:
    folder = tmp_path_factory.mktemp("teacher") / "artifact"
    tiny_artifact(folder)
    with serve(folder, env={"TEACHER_TOKEN_FILE": str(token_file)}) as running:
        yield running


def ask_native(teacher: RunningTeacher, metadata: Metadata) -> bool:
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        return _passed(lambda: stub.Describe(pb.DescribeRequest(), timeout=10, metadata=metadata))


def ask_inference(teacher: RunningTeacher, metadata: Metadata) -> bool:
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return _passed(lambda: stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=10, metadata=metadata))


def ask_unknown(teacher: RunningTeacher, metadata: Metadata) -> bool:
    """Without a token nobody learns which methods there are."""
    with grpc.insecure_channel(teacher.grpc) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Chuck")
        try:
            call(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
        return False


def ask_reflection(teacher: RunningTeacher, metadata: Metadata) -> bool:
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        return _passed(lambda: list(stub.ServerReflectionInfo(iter([asked]), timeout=10, metadata=metadata)))


def ask_http(teacher: RunningTeacher, metadata: Metadata) -> bool:
    return _answered(teacher, "/openapi.json", metadata)


def ask_metrics(teacher: RunningTeacher, metadata: Metadata) -> bool:
    """Metrics and the status page: all of their parts are open, or none."""
    answered = {_answered(teacher, page, metadata) for page in METRICS_PAGES}
    assert len(answered) == 1
    return answered.pop()


def _answered(teacher: RunningTeacher, page: str, metadata: Metadata) -> bool:
    answer = httpx.get(f"{teacher.http}{page}", headers=metadata)
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "token" in answer.json()["error"]
        return False
    return True


def _passed(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError as error:
        refusal = error
    else:
        return True
    assert refusal.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "token" in refusal.details()
    return False


DOORS = [ask_native, ask_inference, ask_unknown, ask_reflection, ask_http, ask_metrics]


@pytest.mark.parametrize("door", DOORS)
def test_every_door_asks_for_a_token(teacher: RunningTeacher, door: Callable[[RunningTeacher, Metadata], bool]) -> None:
    assert door(teacher, bearer(ALICE))
    assert door(teacher, bearer(BOB))
    assert not door(teacher, bearer(MALLORY))
    assert not door(teacher, [])
    assert not door(teacher, bearer(ALICE) + bearer(BOB))


def test_a_stock_triton_client_shows_its_token(teacher: RunningTeacher) -> None:
    with triton.InferenceServerClient(teacher.grpc) as client:
        assert client.is_server_ready()
        headers = {"authorization": f"Bearer {ALICE}"}
        assert client.get_server_metadata(headers=headers).extensions is not None
        with pytest.raises(triton.InferenceServerException, match="UNAUTHENTICATED"):
            client.get_server_metadata()


def test_a_refused_message_is_not_even_read(teacher: RunningTeacher) -> None:
    """A message over the limit would be RESOURCE_EXHAUSTED, had it been received before the refusal."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(teacher.grpc, options=options) as channel:
        call = channel.unary_unary("/teacher.v1.TeacherService/Score")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\0" * (Limits().max_message_bytes + 1), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_health_is_open(teacher: RunningTeacher) -> None:
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        assert stub.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        assert next(stub.Watch(request, timeout=10)).status == health_pb2.HealthCheckResponse.SERVING
        inference = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert inference.ServerLive(service_pb2.ServerLiveRequest(), timeout=10).live
        assert inference.ServerReady(service_pb2.ServerReadyRequest(), timeout=10).ready
    for page in ("/livez", "/readyz", "/healthz"):
        assert httpx.get(f"{teacher.http}{page}").status_code == 200


def test_a_page_that_only_looks_like_health_is_not_open(teacher: RunningTeacher) -> None:
    for page in ("/livez/", "//livez", "/livez/../openapi.json", "/openapi.json?/livez", "/LIVEZ"):
        request = httpx.Request("GET", f"{teacher.http}/")
        request.url = request.url.copy_with(raw_path=page.encode())
        with httpx.Client() as client:
            assert client.send(request).status_code == 401, page


def test_new_tokens_count_at_once_and_old_ones_no_more(teacher: RunningTeacher, token_file: Path) -> None:
    before = token_file.read_text()
    with grpc.insecure_channel(teacher.grpc) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)

        def passes(token: str) -> bool:
            return _passed(lambda: stub.Describe(pb.DescribeRequest(), timeout=10, metadata=bearer(token)))

        assert (passes(ALICE), passes(MALLORY)) == (True, False)
        token_file.write_text(f"{MALLORY}\n")
        assert (passes(ALICE), passes(MALLORY)) == (False, True)
        assert (ask_http(teacher, bearer(ALICE)), ask_http(teacher, bearer(MALLORY))) == (False, True)
        token_file.write_text("broken\n")
        assert (passes(ALICE), passes(MALLORY)) == (False, True)
        token_file.write_text(before)
        assert (passes(ALICE), passes(MALLORY)) == (True, False)


def test_metrics_are_open_by_a_flag(tmp_path: Path, file: Path) -> None:
    tiny_artifact(tmp_path / "artifact")
    with serve(tmp_path / "artifact", "--open-metrics", "--token-file", str(file)) as teacher:
        assert ask_metrics(teacher, [])
        assert not ask_http(teacher, [])
        assert not ask_native(teacher, [])
        assert (
            'teacher_requests_total{model="teacher",outcome="Unauthenticated"} 2.0\n'
            in httpx.get(f"{teacher.http}/metrics").text
        )
