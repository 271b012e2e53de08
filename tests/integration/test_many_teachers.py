"""Several teachers in one server: each answers as if it were alone, and they come and go without harm to the others."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from tests.integration.line import Line, city_teacher
from tests.integration.runs import assert_close, epochs, train
from tests.serving import RunningTeacher, finished, serve, start, tiny_artifact
from tests.teacher_server.dense_clients import infer_json, infer_message, log_probs_in, log_probs_of_json
from tests.teacher_server.scoring import dense_arrays_of, log_probs_of, message_of, trips_message_of, trips_of, work_of
from trainer.errors import BadInput, TeacherMismatch
from trainer.teacher.address import connect

WORK = work_of([[1, 2, 3], [4, 5]], [[[6, 7], [8, 9, 10]], [[11, 12]]])
TRIPS = trips_of([[1, 2, 3], [4, 5]])
INDEX = "/v2/repository/index"
SETTLE_S = 20.0


class Asker:
    """Clients of one server, through all of its doors."""

    def __init__(self, teacher: RunningTeacher) -> None:
        self.channel = grpc.insecure_channel(teacher.grpc)
        self.native = teacher_pb2_grpc.TeacherServiceStub(self.channel)
        self.inference = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.rest = httpx.Client(base_url=teacher.http or "")

    def scores(self, **named: str) -> list[float]:
        return log_probs_of(self.native.Score(message_of(WORK, **named), timeout=30)).tolist()

    def likelihoods(self, **named: str) -> list[float]:
        reply = self.native.Likelihood(trips_message_of(TRIPS, **named), timeout=30)
        return np.frombuffer(reply.log_likelihoods, "<f8").tolist()

    def inferred(self, model: str) -> tuple[list[Any], list[Any]]:
        """Over gRPC and over REST."""
        arrays = dense_arrays_of(WORK)
        over_grpc = log_probs_in(self.inference.ModelInfer(infer_message(arrays, model), timeout=30))
        answer = self.rest.post(f"/v2/models/{model}/infer", json=infer_json(arrays))
        assert answer.status_code == 200, answer.text
        return over_grpc.tolist(), log_probs_of_json(answer.json()).tolist()

    def index(self) -> dict[str, tuple[str, str]]:
        """(state, reason) by name; both protocols say the same."""
        for _ in range(2):  # a state may change between the two questions
            told = self.inference.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=10).models
            found = {each.name: (each.state, each.reason) for each in told}
            rest = {each["name"]: (each["state"], each["reason"]) for each in self.rest.post(INDEX).json()}
            if rest == found:
                return found
        raise AssertionError(f"gRPC says {found}, REST says {rest}")

    def healthy(self, name: str) -> bool:
        status = self.health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING)

    def metrics(self) -> list[str]:
        return self.rest.get("/metrics").text.splitlines()

    def close(self) -> None:
        self.channel.close()
        self.rest.close()


@contextmanager
def asking(*artifacts: Path) -> Iterator[tuple[Asker, RunningTeacher]]:
    first, *others = artifacts
    with serve(first, *map(str, others)) as teacher:
        asker = Asker(teacher)
        try:
            yield asker, teacher
        finally:
            asker.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with the teachers `north` and `south`."""
    for seed, name in enumerate(("north", "south")):
        tiny_artifact(tmp_path / "shelf" / name, seed=seed)
    return tmp_path / "shelf"


def digest_in(folder: Path) -> str:
    return str(json.loads((folder / "teacher.json").read_text())["digest"])


def renew(folder: Path, seed: int) -> str:
    """Write another teacher over the files of one; returns its digest."""
    with tempfile.TemporaryDirectory() as place:
        digest = tiny_artifact(Path(place) / "new", seed=seed).digest
        for name in ("teacher.json", "model.safetensors"):
            shutil.copyfile(Path(place) / "new" / name, folder / name)
    return digest


def refused(ask: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value.code(), caught.value.details()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_each_answers_as_if_it_were_alone(shelf: Path) -> None:
    """By name and by digest, through all doors, bit for bit; a request that names nobody is told who is there."""
    alone = {}
    for name in ("north", "south"):
        with asking(shelf / name) as (asker, _):
            alone[name] = (asker.scores(), asker.likelihoods(), asker.inferred("teacher"))
    assert alone["north"] != alone["south"]
    with asking(shelf / "north", shelf / "south") as (asker, teacher):
        assert teacher.digest.split(",") == [digest_in(shelf / name) for name in ("north", "south")]
        for name, (scores, likelihoods, inferred) in alone.items():
            digest = digest_in(shelf / name)
            for named in ({"model": name}, {"model": digest}, {"digest": digest}, {"model": name, "digest": digest}):
                assert asker.scores(**named) == scores
                assert asker.likelihoods(**named) == likelihoods
                assert asker.native.Describe(pb.DescribeRequest(**named), timeout=10).digest == digest
            assert asker.inferred(name) == asker.inferred(digest) == inferred
            assert asker.healthy(name)
            assert asker.healthy(digest)
            assert asker.rest.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
            config = asker.rest.get(f"/v2/models/{name}/config").json()
            assert config["parameters"]["digest"]["string_value"] == digest
            assert asker.rest.get("/status.json", params={"model": digest}).json()["model"]["name"] == name
            assert f'teacher_requests_total{{model="{name}",outcome="ok"}} 12.0' in asker.metrics()
        for ask in (asker.scores, asker.likelihoods, lambda: asker.native.Describe(pb.DescribeRequest(), timeout=10)):
            code, details = refused(ask)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert all(f"{name} ({digest_in(shelf / name)})" in details for name in alone)
        assert 'teacher_requests_total{model="",outcome="InvalidRequest"} 3.0' in asker.metrics()
        crossed = {"model": "north", "digest": digest_in(shelf / "south")}
        assert refused(lambda: asker.scores(**crossed))[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert refused(lambda: asker.scores(digest="ab" * 32))[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert refused(lambda: asker.scores(model="east"))[0] is grpc.StatusCode.NOT_FOUND
        assert 'teacher_requests_total{model="",outcome="UnknownModel"} 1.0' in asker.metrics()
        assert asker.rest.get("/v2/models/east").status_code == 404


def test_a_broken_one_takes_nobody_down(shelf: Path) -> None:
    tiny_artifact(shelf / "east", seed=7)
    (shelf / "east" / "model.safetensors").write_bytes(b"half a file")
    with asking(shelf) as (asker, teacher):
        index = asker.index()
        assert {name: state for name, (state, _) in index.items()} == {
            "north": "READY",
            "south": "READY",
            "east": "UNAVAILABLE",
        }
        assert "model.safetensors" in index["east"][1]
        assert asker.rest.get("/readyz").status_code == 200
        assert asker.rest.get("/healthz").json()["broken"] == ["east"]
        assert asker.rest.get("/v2/models/east/ready").status_code == 503
        assert (asker.healthy(""), asker.healthy("north"), asker.healthy("east")) == (True, True, False)
        assert {"name": "east", "state": "UNAVAILABLE", "reason": index["east"][1]} in asker.rest.get(
            "/status.json"
        ).json()["models"]
        metrics = asker.metrics()
        for name, broken in (("north", 0), ("south", 0), ("east", 1)):
            assert f'teacher_model_broken{{model="{name}"}} {broken:.1f}' in metrics
            assert f'teacher_model_ready{{model="{name}"}} {1 - broken:.1f}' in metrics
        assert refused(lambda: asker.scores(model="east"))[0] is grpc.StatusCode.UNAVAILABLE
        assert asker.scores(model="north") != asker.scores(model="south")
        renew(shelf / "east", seed=7)
        until(lambda: asker.index()["east"] == ("READY", ""))
        assert asker.scores(model="east") == asker.scores(digest=digest_in(shelf / "east"))
        assert "model east cannot be served: " in teacher.stop()


def test_a_folder_whose_name_is_no_text_takes_nobody_down(tmp_path: Path) -> None:
    """All pages show it, with escapes; what is wrong in a shelf of such a name is shown as well."""
    shelf = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    tiny_artifact(shelf / "north")
    tiny_artifact(shelf / os.fsdecode(b"s\xfcd"), seed=1)
    (shelf / "east").mkdir()
    (shelf / "east" / "teacher.json").write_text("{}")
    with asking(shelf) as (asker, _):
        name = f"{tmp_path}/caf\\xe9/s\\xfcd"
        index = asker.index()
        assert index[name] == ("UNAVAILABLE", f"{name}: a model's name has letters, digits and ._- only: "
                               "rename the folder")  # fmt: skip
        assert index["north"] == ("READY", "")
        assert "east" in index["east"][1]
        assert {each["name"] for each in asker.rest.get("/status.json").json()["models"]} == {"north", "east", name}
        assert name in asker.rest.get("/healthz").json()["broken"]
        escaped = name.replace("\\", "\\\\")
        assert f'teacher_model_broken{{model="{escaped}"}} 1.0' in asker.metrics()
        assert not asker.healthy(name)
        assert asker.scores(model="north") == asker.scores(digest=digest_in(shelf / "north"))


def test_a_trainer_that_asks_for_another_teacher_is_counted(shelf: Path) -> None:
    """From zero on, so that the first one is an increase. To be told who is there counts as no request."""
    with asking(shelf) as (asker, teacher):

        def wrong() -> list[str]:
            nobodys = 'teacher_requests_total{model="",outcome="WrongTeacher"} '
            return [line.removeprefix(nobodys) for line in asker.metrics() if line.startswith(nobodys)]

        assert wrong() == ["0.0"]
        with pytest.raises(TeacherMismatch):
            connect(f"grpc://{teacher.grpc}", digest="ab" * 32)
        assert wrong() == ["1.0"]
        before = [line for line in asker.metrics() if line.startswith("teacher_requests_total")]
        asker.native.Describe(pb.DescribeRequest(model="north"), timeout=10)
        assert [line for line in asker.metrics() if line.startswith("teacher_requests_total")] == before


@pytest.mark.slow
def test_they_come_and_go_while_the_others_answer(shelf: Path) -> None:
    north, south = digest_in(shelf / "north"), digest_in(shelf / "south")
    with asking(shelf) as (asker, _):
        meant, answers, errors, over = asker.scores(digest=north), [0], list[str](), threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                try:
                    assert asker.scores(digest=north) == pytest.approx(meant, abs=1e-5)
                    answers[0] += 1
                except Exception as error:
                    errors.append(str(error))

        threads = [threading.Thread(target=keep_asking) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            east = tiny_artifact(shelf / "east", seed=5).digest
            until(lambda: "east" in asker.index())
            assert asker.scores(digest=east) == pytest.approx(asker.scores(model="east"), abs=1e-5)
            shutil.rmtree(shelf / "south")
            until(lambda: "south" not in asker.index())
            code, details = refused(lambda: asker.scores(digest=south))
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert f"north ({north}), east ({east})" in details
            renewed = renew(shelf / "east", seed=6)
            until(lambda: asker.native.Describe(pb.DescribeRequest(model="east"), timeout=10).digest == renewed)
            (shelf / "north" / "model.safetensors").write_bytes(b"spoilt")  # the teacher that is served stays
            until(lambda: bool(asker.index()["north"][1]))
            assert asker.index()["north"][0] == "READY"
            shutil.rmtree(shelf / "east")
            until(lambda: "east" not in asker.index())
            assert asker.scores() == pytest.approx(meant, abs=1e-5)  # one is left: it need not be named
        finally:
            over.set()
            for thread in threads:
                thread.join(30)
        assert errors == []
        assert answers[0] > 100


@pytest.mark.slow
def test_no_request_to_one_that_goes_is_lost(shelf: Path) -> None:
    """Whoever was let in is answered; whoever comes later is told that it is gone."""
    south = digest_in(shelf / "south")
    with asking(shelf) as (asker, _):
        codes: list[object] = []

        def ask_until_it_is_gone() -> None:
            while True:
                try:
                    asker.scores(digest=south)
                except grpc.RpcError as error:
                    codes.append(error.code())
                    return

        threads = [threading.Thread(target=ask_until_it_is_gone) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        shutil.rmtree(shelf / "south")
        for thread in threads:
            thread.join(30)
        # The only one that is left refuses what is meant for another; nothing was cut off or left without an answer.
        assert codes == [grpc.StatusCode.FAILED_PRECONDITION] * 4
        unready = [line for line in asker.metrics() if 'outcome="NotReady"' in line]
        assert {line.rpartition(" ")[2] for line in unready} == {"0.0"}


@pytest.mark.slow
def test_what_cannot_be_served_at_all_is_one_error(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copytree(shelf / "north", tmp_path / "other" / "north")
    with asking(shelf / "north", shelf / "south", tmp_path / "other" / "north") as (asker, _):
        name = str(tmp_path / "other" / "north")
        assert asker.index()[name] == ("UNAVAILABLE", f"{name}: {shelf / 'north'} has the same name: "
                                       "rename one of the folders")  # fmt: skip
    assert "--model-name is for one teacher" in finished(start(shelf, "--model-name", "x"), 2)
    for name in ("north", "south"):
        (shelf / name / "model.safetensors").unlink()
    said = finished(start(shelf), 2)
    assert "teacher: error: " in said.splitlines()[-1]


@pytest.mark.slow
def test_a_run_trains_with_the_one_of_its_digest(line: Line, taught_run: Path, tmp_path: Path) -> None:
    """The config's, or what the run was begun with."""
    digest = digest_in(line.teacher)
    other = city_teacher(tmp_path / "other", line.city, seed=4)
    with serve(line.teacher, str(tmp_path / "other")) as two:
        address, by_digest = f"grpc://{two.grpc}", ("--set", f"distill.teacher_digest={digest}")
        train(line, tmp_path / "run", "--teacher", address, *by_digest, *epochs(2))
        assert_close(taught_run, tmp_path / "run")
        shutil.copytree(taught_run, tmp_path / "again")
        train(line, tmp_path / "again", "--teacher", address, "--resume")
        with pytest.raises(BadInput) as unsaid:
            connect(address)
        assert "name one by its digest (a run's setting distill.teacher_digest)" in str(unsaid.value)
        assert digest in str(unsaid.value)
        assert other in str(unsaid.value)
        with pytest.raises(TeacherMismatch, match=f"is for teacher {'ab' * 32}, but here are teacher"):
            connect(address, digest="ab" * 32)
        for where, wanted in ((address, other), (f"triton://{two.grpc}/{other}", None)):
            pool = connect(where, digest=wanted)
            assert pool
            with pool:
                assert pool.description.digest == other
