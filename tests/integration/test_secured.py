"""The trainer and the command line against a server behind TLS, client certificates and tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from teacher_server.__main__ import main
from tests.certificates import Authority, PemFiles
from tests.serving import RunningTeacher, serve, tiny_artifact
from trainer.errors import BadInput, TeacherUnavailable
from trainer.teacher.address import connect
from trainer.teacher.pool import Patience, Pool
from trainer.teacher.protocol import Query, Teacher

TOKEN, NEXT_TOKEN = "a-token-of-this-job-0", "a-token-of-this-job-1"
QUERY = Query(
    tokens=np.array([1, 2, 3], np.int32),
    lengths=np.array([3]),
    scored=np.array([1]),
    window=0,
    candidates=np.array([4, 5], np.int32),
    counts=np.array([2]),
)


def reach(secured: Secured, scheme: str = "grpcs", connect_s: float = 20.0) -> Pool:
    pool = connect(f"{scheme}://{secured.teacher.grpc}", Patience(connect_s=connect_s))
    assert pool is not None
    return pool


@dataclass(frozen=True)
class Secured:
    teacher: RunningTeacher
    server: PemFiles
    client: PemFiles
    tokens: Path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    tiny_artifact(folder / "artifact")
    server, client = Authority().issue(folder / "server"), Authority().issue(folder / "client")
    tokens = folder / "tokens"
    tokens.write_text(TOKEN)
    tokens.chmod(0o600)
    flags = ["--tls-cert", str(server.certificate), "--tls-key", str(server.key), "--tls-client-ca", str(client.ca)]
    with serve(folder / "artifact", *flags, "--token-file", str(tokens)) as teacher:
        yield Secured(teacher, server, client, tokens)


@pytest.fixture
def equipped(secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of somebody who may ask; returns the token's file."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    files = {"CA": secured.server.ca, "CERT": secured.client.certificate, "KEY": secured.client.key}
    for name, file in {**files, "TOKEN_FILE": token}.items():
        monkeypatch.setenv(f"TRAINER_TEACHER_{name}", str(file))
        monkeypatch.setenv(f"TEACHER_CLIENT_{name}", str(file))
    return token


@pytest.mark.slow
def test_the_command_line_asks(
    secured: Secured,
    equipped: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    address = f"grpcs://{secured.teacher.grpc}"
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"histories": [[1, 2, 3]], "candidates": [[[4, 5]]]}))
    monkeypatch.setattr("sys.argv", ["teacher", "score", address, str(request)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["digest"] == secured.teacher.digest
    equipped.write_text("a-token-nobody-knows")
    monkeypatch.setattr("sys.argv", ["teacher", "describe", address])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "teacher: error: the token is not known here\n"


@pytest.mark.parametrize("protocol", ["native", "oip", "rest"])
@pytest.mark.usefixtures("equipped")
def test_the_load_generator_passes_every_door(
    secured: Secured, protocol: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    http = str(secured.teacher.http).replace("http://", "https://")
    address = http if protocol == "rest" else f"grpcs://{secured.teacher.grpc}"
    small = ["--duration=0.3", "--warm-up=0", "--trips=1", "--steps=2", "--callers=1", "--json"]
    monkeypatch.setattr("sys.argv", ["teacher", "bench", address, "--protocol", protocol, *small])
    with pytest.raises(SystemExit) as ended:
        main()
    summary = json.loads(capsys.readouterr().out)
    assert (ended.value.code, summary["errors"]) == (0, [])
    assert summary["requests"] > 0


@pytest.mark.parametrize("form", ["grpcs://{}", "tritons://{}/teacher"])
@pytest.mark.usefixtures("equipped")
def test_the_trainer_asks_by_both_protocols(secured: Secured, form: str) -> None:
    teacher: Teacher | None = connect(form.format(secured.teacher.grpc), Patience(deadline_s=20))
    assert teacher is not None
    try:
        assert teacher.description.digest == secured.teacher.digest
        assert np.exp(teacher.score(QUERY).log_probs).sum() == pytest.approx(1, abs=1e-5)
    finally:
        teacher.close()


@pytest.mark.parametrize("form", ["grpcs://{}", "tritons://{}/teacher"])
def test_a_wrong_token_is_said_at_once(secured: Secured, equipped: Path, form: str) -> None:
    equipped.write_text("a-token-nobody-knows")
    with pytest.raises(BadInput, match=r"the token is not known here \(TRAINER_TEACHER_TOKEN_FILE names"):
        connect(form.format(secured.teacher.grpc), Patience(deadline_s=20))


def test_a_token_may_change_while_one_trains(secured: Secured, equipped: Path) -> None:
    with reach(secured) as teacher:
        before = teacher.score(QUERY).log_probs
        secured.tokens.write_text(f"{TOKEN}\n{NEXT_TOKEN}\n")
        equipped.write_text(NEXT_TOKEN)
        teacher.score(QUERY)
        secured.tokens.write_text(f"{NEXT_TOKEN}\n")
        np.testing.assert_array_equal(teacher.score(QUERY).log_probs, before)
        secured.tokens.write_text(TOKEN)
        with pytest.raises(BadInput, match="the token is not known"):
            teacher.score(QUERY)


@pytest.mark.usefixtures("equipped")
def test_a_server_that_an_unknown_authority_vouches_for_is_not_trusted(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAINER_TEACHER_CA")
    with pytest.raises(TeacherUnavailable, match=r"no teacher answers at 127\.0\.0\.1:\d+ .*CERTIFICATE_VERIFY_FAILED"):
        reach(secured, connect_s=0.5)


@pytest.mark.usefixtures("equipped")
def test_without_a_certificate_of_ones_own_nobody_answers(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERT", "KEY"):
        monkeypatch.delenv(f"TRAINER_TEACHER_{name}")
    with pytest.raises(TeacherUnavailable, match=r"no teacher answers at 127\.0\.0\.1:\d+ .*UNAVAILABLE"):
        reach(secured, connect_s=0.5)


@pytest.mark.usefixtures("equipped")
def test_plain_text_to_a_port_with_tls_is_said(secured: Secured) -> None:
    with pytest.raises(TeacherUnavailable, match="no teacher answers"):
        reach(secured, scheme="grpc", connect_s=0.5)
