"""A name stands for several real servers that come and go, and for their certificates."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.integration.busy import Busy, calls
from tests.integration.same_answers import query_of, reach
from tests.serving import serve, tiny_artifact
from trainer.errors import TeacherUnavailable
from trainer.teacher import pool as pool_module


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failover") / "teacher"
    tiny_artifact(folder, block_size=48)
    return folder


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the name teachers.test."""
    addresses: list[str] = []
    known = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, **how: Any) -> Any:
        if host != "teachers.test":
            return known(host, port, **how)
        return [found for address in addresses for found in known(address, port, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(pool_module, "RESOLVE_S", 0.1)
    return addresses


@pytest.mark.slow
def test_replicas_appear_and_vanish_behind_one_name(artifact: Path, replicas: list[str]) -> None:
    replicas.append("127.0.0.1")
    with serve(artifact) as first:
        port = first.grpc.rpartition(":")[2]
        names = [f"teachers.test:{port} (127.0.0.{number})" for number in (1, 2)]
        with reach(f"grpc://teachers.test:{port}", on_loss="fail") as pool, Busy(pool) as busy:
            busy.more()
            with serve(artifact, "--grpc-address", f"127.0.0.2:{port}") as second:
                replicas.append("127.0.0.2")
                busy.until(lambda: names[1] in pool.stats().endpoints and calls(pool, names[1]) > 10)
                replicas.remove("127.0.0.1")
                time.sleep(0.5)
                before = calls(pool, names[0])
                busy.more(40)
                assert calls(pool, names[0]) == before
                replicas[:] = ["127.0.0.1"]
                busy.until(lambda: calls(pool, names[0]) > before)
                time.sleep(0.5)  # nobody is left at the second one, which may end
                second.stop()
                busy.more(40)
        counts = pool.stats().endpoints
        assert [counts[name]["failures"] for name in names] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["grpcs://{}", "tritons://{}/teacher"])
def test_a_certificate_for_a_name_is_good_for_all_its_addresses(
    artifact: Path, replicas: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("teachers.test")
    leaf.private_key_pem.write_to_path(str(tmp_path / "key"))
    (tmp_path / "crt").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    monkeypatch.setenv("TRAINER_TEACHER_CA", str(tmp_path / "ca"))
    replicas.append("127.0.0.1")
    with serve(artifact, "--tls-cert", str(tmp_path / "crt"), "--tls-key", str(tmp_path / "key")) as teacher:
        port = teacher.grpc.rpartition(":")[2]
        with reach(form.format(f"teachers.test:{port}"), connect_s=10) as pool:
            pool.score(query_of(pool.description, 0, 0))
        with pytest.raises(TeacherUnavailable, match="no teacher answers"):
            reach(form.format(teacher.grpc), connect_s=0.5)
