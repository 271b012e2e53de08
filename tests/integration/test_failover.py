"""A pool of real servers that are killed, frozen, overloaded and replaced while they are asked."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.busy import Busy, calls
from tests.integration.same_answers import query_of, reach
from tests.serving import RunningTeacher, serve, start, tiny_artifact, wait_until_ready
from trainer.errors import Stopped, TeacherMismatch, TeacherUnavailable
from trainer.teacher.endpoint import EndpointError, Trouble
from trainer.teacher.local import LocalEndpoint
from trainer.teacher.pool import Pool
from trainer.teacher.protocol import Answer


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failover") / "teacher"
    tiny_artifact(folder, block_size=48)
    return folder


@pytest.fixture
def pair(artifact: Path) -> Iterator[tuple[RunningTeacher, RunningTeacher]]:
    with serve(artifact) as first, serve(artifact) as second:
        yield first, second


def both(pair: tuple[RunningTeacher, RunningTeacher], form: str = "grpc://{}", **patience: Any) -> Pool:
    return reach(form.format(",".join(teacher.grpc for teacher in pair)), **patience)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["grpc://{}", "triton://{}/teacher"])
def test_one_of_two_is_killed_in_mid_call(artifact: Path, form: str) -> None:
    with serve(artifact) as first, serve(artifact) as second, both((first, second), form, on_loss="fail") as pool:
        with Busy(pool) as busy:
            # The less busy one is asked, so the faster one of two processes gets more.
            busy.until(lambda: min(calls(pool, first.grpc), calls(pool, second.grpc)) >= 10)
            second.process.kill()
            second.process.wait()
            before = calls(pool, second.grpc)
            busy.more(50)
            assert calls(pool, second.grpc) - before <= 4
        stats = pool.stats()
        assert 1 <= stats.failovers <= stats.retries <= 4
        assert stats.endpoints[first.grpc]["failures"] == 0


def test_a_frozen_one_costs_one_deadline_and_works_again_when_it_wakes(
    pair: tuple[RunningTeacher, RunningTeacher],
) -> None:
    frozen, well = pair
    with both(pair, deadline_s=1.0, on_loss="fail") as pool, Busy(pool) as busy:
        busy.more()
        os.kill(frozen.process.pid, signal.SIGSTOP)
        try:
            asked = time.monotonic()
            busy.until(lambda: pool.stats().endpoints[frozen.grpc]["failures"] > 0)
            assert time.monotonic() - asked < 3
            time.sleep(1.2)  # all calls that it had are over
            before = calls(pool, frozen.grpc)
            busy.more(100)
            assert calls(pool, frozen.grpc) == before
        finally:
            os.kill(frozen.process.pid, signal.SIGCONT)
        busy.until(lambda: calls(pool, frozen.grpc) > before)
        busy.more()
        assert pool.stats().endpoints[well.grpc]["failures"] == 0


@contextmanager
def mortal(artifact: Path, address: str = "127.0.0.1:0") -> Iterator[RunningTeacher]:
    """A server that the test may kill."""
    teacher = wait_until_ready(start(artifact, "--grpc-address", address))
    try:
        yield teacher
    finally:
        kill(teacher)


def kill(teacher: RunningTeacher) -> None:
    teacher.process.kill()
    if teacher.process.stdout and not teacher.process.stdout.closed:
        teacher.process.communicate()


@pytest.mark.slow
def test_all_are_away_for_a_while(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mortal(artifact) as first, reach(f"grpc://{first.grpc}") as pool, Busy(pool) as busy:
        kill(first)
        busy.until(lambda: pool.stats().waited_s > 1)
        with mortal(artifact, first.grpc):
            busy.more()
            busy.end()
    said = capsys.readouterr().err
    assert f"trainer: no teacher answers at {first.grpc} (UNAVAILABLE: " in said
    assert said.count("; waiting (limit 1800 s)") == said.count("trainer: a teacher answers again after ") == 1


@pytest.mark.slow
def test_a_full_queue_is_waited_for(artifact: Path) -> None:
    with serve(artifact, "--queue-tokens=4000", "--batch-tokens=500") as small, reach(f"grpc://{small.grpc}") as pool:
        query = query_of(pool.description, 0, window=47)
        with Busy(pool, 12, query) as busy:
            busy.until(lambda: pool.stats().endpoints[small.grpc]["refusals"] >= 10)
            busy.more(24)
        assert pool.stats().endpoints[small.grpc]["failures"] == 0


@pytest.mark.slow
def test_another_teacher_on_the_same_port_is_not_asked(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_artifact(tmp_path / "other", block_size=48, seed=5).digest
    with mortal(artifact) as first, mortal(artifact) as second, both((first, second)) as pool, Busy(pool) as busy:
        busy.more()
        kill(second)
        busy.more()
        with mortal(tmp_path / "other", second.grpc):
            told = ""
            while "not used" not in told:
                busy.more(1)
                told += capsys.readouterr().err
            before = calls(pool, second.grpc)
            busy.more(40)
            busy.end()
            assert calls(pool, second.grpc) == before
            told += capsys.readouterr().err
            assert told.count(f"the teacher at {second.grpc} is {other} (float32), not") == 1
            kill(first)
            with mortal(tmp_path / "other", first.grpc), pytest.raises(TeacherMismatch, match=other):
                pool.score(query_of(pool.description, 1, 0))


@pytest.mark.slow
def test_a_local_teacher_that_is_killed_is_started_again(artifact: Path) -> None:
    with reach(f"local:{artifact}") as pool, Busy(pool, 2) as busy:
        busy.more()
        (member,) = pool._members._all.values()
        endpoint: Any = member.endpoint
        killed = endpoint.pid
        os.kill(killed, signal.SIGKILL)
        busy.more()
        assert endpoint.pid != killed


@pytest.mark.slow
def test_a_local_teacher_that_died_says_its_last_words(artifact: Path) -> None:
    with reach(f"local:{artifact}", on_loss="fail") as pool:
        (member,) = pool._members._all.values()
        os.kill(member.endpoint.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(
            TeacherUnavailable, match=rf"no teacher answers at local:{artifact} \(the local teacher died"
        ):
            pool.score(query_of(pool.description, 0, 0))


def test_close_does_not_wait_for_a_frozen_server(artifact: Path) -> None:
    with serve(artifact) as frozen, ThreadPoolExecutor(3) as threads:
        with reach(f"grpc://{frozen.grpc}") as pool:
            query = query_of(pool.description, 0, 0)
            os.kill(frozen.process.pid, signal.SIGSTOP)
            answers: list[Future[Answer]] = [threads.submit(pool.score, query) for _ in range(3)]
            time.sleep(0.3)
            begun = time.monotonic()
        try:
            for answer in answers:
                with pytest.raises(Stopped):
                    answer.result(2)
            assert time.monotonic() - begun < 2
        finally:
            os.kill(frozen.process.pid, signal.SIGCONT)


@pytest.mark.parametrize(("visible", "seen"), [("", "1"), ("4,7", "7")])
def test_a_ranks_local_teacher_sees_the_ranks_gpu_alone(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, visible: str, seen: str
) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "run"), ("LOCAL_RANK", "1"), ("CUDA_VISIBLE_DEVICES", visible)):
        monkeypatch.setenv(name, value)
    endpoint = LocalEndpoint(artifact)
    try:
        environment = Path(f"/proc/{endpoint.pid}/environ").read_bytes().split(b"\0")
    finally:
        endpoint.close()
    assert f"CUDA_VISIBLE_DEVICES={seen}".encode() in environment


def nobody_starts(*_: object, **__: object) -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def killed(endpoint: LocalEndpoint) -> None:
    os.kill(endpoint.pid, signal.SIGKILL)
    endpoint._process.wait(10)


@pytest.mark.slow
def test_a_local_teacher_that_cannot_be_started_again_is_lost_until_it_can(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(LocalEndpoint(artifact)) as endpoint:
        killed(endpoint)
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", nobody_starts)
            for _ in range(2):
                with pytest.raises(EndpointError, match=r"status -9: .*cannot be started again: .*allocate") as caught:
                    endpoint.describe(1)
                assert caught.value.trouble is Trouble.LOST
        with pytest.raises(EndpointError, match=r"status -9: [^;]*$"):
            endpoint.describe(1)
        endpoint._wait_for_socket()
        assert endpoint.describe(5).block_size == 48


@pytest.mark.slow
def test_a_local_teacher_whose_folder_is_gone_is_lost(artifact: Path) -> None:
    """Something cleans /tmp under a long run."""
    with closing(LocalEndpoint(artifact)) as endpoint:
        query = query_of(endpoint.describe(5), 0, 0)
        shutil.rmtree(endpoint._folder.name)
        killed(endpoint)
        for ask in (lambda: endpoint.score(query, 1), lambda: endpoint.describe(1)):
            with pytest.raises(EndpointError, match=r"its log cannot be read: .*No such file") as caught:
                ask()
            assert caught.value.trouble is Trouble.LOST


def test_a_local_teacher_that_cannot_be_started_at_all(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", nobody_starts)
    with pytest.raises(TeacherUnavailable, match=r"the local teacher did not start: .*Cannot allocate memory"):
        LocalEndpoint(artifact)
