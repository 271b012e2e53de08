"""`trainer evaluate --teacher`: a served teacher's figures are those of `teacher evaluate`, over every door."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2 as oip

from protos.teacher.v1 import teacher_pb2 as pb
from protos.teacher.v1 import teacher_pb2_grpc
from teacher_server.artifact import load_artifact
from teacher_server.evaluate.judge import Evaluation, evaluate
from teacher_server.evaluate.report import write_evaluation
from teacher_server.fit.tokens import open_tokens
from tests.integration.line import Line
from tests.integration.same_answers import reach
from tests.integration.test_generate import trainer
from tests.serving import RunningTeacher
from trainer.data.prepare import Prepared, prepare
from trainer.errors import BadInput
from trainer.evaluate.teacher_judge import TeacherJudge, judge_by_teacher
from trainer.grid import map_roads
from trainer.teacher.protocol import TripQuery
from trainer.tokens import write_tokens

FORMS = ("grpc://{}", "triton://{}/teacher")


@pytest.fixture(scope="module")
def prepared(line: Line) -> Prepared:
    return prepare(line.data, line.cache)


@pytest.fixture(scope="module")
def judged(line: Line, served: RunningTeacher, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    """What `teacher evaluate` says of the teacher, and where it is written."""
    folder = tmp_path_factory.mktemp("judged")
    with reach(f"grpc://{served.grpc}") as teacher:
        tokens = map_roads(teacher.description.grid, line.city.road_map.centres)  # type: ignore[arg-type]
    write_tokens(folder / "tokens", tokens, line.city)
    found = evaluate(load_artifact(line.teacher), open_tokens(folder / "tokens"), 0, torch.device("cpu"))
    write_evaluation(found, folder / "evaluation.json")
    return folder / "evaluation.json", found


@pytest.mark.parametrize("form", FORMS)
def test_figures_are_those_of_teacher_evaluate(
    served: RunningTeacher, prepared: Prepared, judged: tuple[Path, Evaluation], form: str, tmp_path: Path
) -> None:
    elsewhere = dataclasses.replace(prepared, folder=tmp_path / "data")  # where nothing is kept
    file, expected = judged
    found, scores = judge_by_teacher(form.format(served.grpc), elsewhere, "test", None, file)
    assert found["judge_digest"] == expected.digest
    assert found["anomaly_threshold"] == pytest.approx(expected.threshold, rel=1e-5)
    assert found["anomaly_score_mean_val"] == pytest.approx(expected.normal_mean, rel=1e-5)
    assert found["teacher_perplexity_val"] == pytest.approx(expected.val_perplexity, rel=1e-5)
    assert found["teacher_perplexity_real"] == pytest.approx(expected.perplexity, rel=1e-5)
    assert (found["judged_trips_real"], found["cut_trips_real"]) == (expected.trips, expected.trips_cut)
    assert found["anomaly_rate_real"] == np.mean(scores["real_anomaly_score"] > found["anomaly_threshold"])
    for each in expected.detections:
        assert found[f"outlier_pr_auc_{each.kind}_{each.level}_{each.share:g}"] == each.pr_auc
        assert found[f"outlier_f1_{each.kind}_{each.level}_{each.share:g}"] == each.f1


@pytest.mark.slow
def test_generated_trips_are_judged_by_the_command(
    line: Line, plain_run: Path, judged: tuple[Path, Evaluation], tmp_path: Path
) -> None:
    trainer("generate", plain_run, "--cache", line.cache, "--out", tmp_path / "g.csv", "--count", "12")
    flags = ("--generated", tmp_path / "g.csv", "--teacher", f"local:{line.teacher}", "--teacher-evaluation", judged[0])
    shown = trainer("evaluate", plain_run, "--cache", line.cache, "--out", tmp_path / "e.json", *flags).stdout
    figures = json.loads((tmp_path / "e.json").read_text())
    assert (figures["judge_digest"], figures["judged_trips_generated"]) == (judged[1].digest, 12)
    assert figures["teacher_perplexity_generated"] > 1
    assert 0 <= figures["anomaly_rate_generated"] <= 1
    assert figures["trips_digest"]
    with np.load(tmp_path / "e.npz") as entries:
        assert len(entries["anomaly_score"]) == 12
        flagged = entries["anomaly_score"] > figures["anomaly_threshold"]
    assert flagged.mean() == figures["anomaly_rate_generated"]
    for name in ("teacher_perplexity_generated", "anomaly_rate_real", "outlier_pr_auc_detour_3_0.1"):
        assert f"{name} " in shown


def test_real_trips_are_asked_about_once(
    served: RunningTeacher, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = dataclasses.replace(prepared, folder=tmp_path / "data")
    with reach(f"grpc://{served.grpc}") as teacher:
        first, _ = TeacherJudge(teacher, elsewhere).verdict("test", None)
        (kept,) = (tmp_path / "data.judged").glob("val-*.npz")
        before = teacher.stats().calls
        assert TeacherJudge(teacher, elsewhere).verdict("test", None)[0] == first
        assert teacher.stats().calls == before > 0
        kept.write_bytes(kept.read_bytes()[:-40])  # a broken one is no obstacle
        assert TeacherJudge(teacher, elsewhere).verdict("test", None)[0] == first
        assert teacher.stats().calls > before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"digest": "cd" * 32}, "is about teacher cdcdcdcdcdcdcdcd, but this is"),
        ({"data_fingerprint": "ef" * 32}, "is about data efefefefefefefef, but this is"),
        ({"detections": [{}]}, "is not what `teacher evaluate --out` writes"),
    ],
)
def test_the_benchmark_of_another_teacher_is_refused(
    served: RunningTeacher,
    prepared: Prepared,
    judged: tuple[Path, Evaluation],
    tmp_path: Path,
    changed: dict[str, object],
    words: str,
) -> None:
    (tmp_path / "e.json").write_text(json.dumps(json.loads(judged[0].read_text()) | changed))
    with pytest.raises(BadInput, match=words):
        judge_by_teacher(f"grpc://{served.grpc}", prepared, "test", None, tmp_path / "e.json")


def test_a_benchmark_without_its_teacher_is_refused(plain_run: Path, judged: tuple[Path, Evaluation]) -> None:
    told = trainer("evaluate", plain_run, "--teacher-evaluation", judged[0], status=2).stderr
    assert "--teacher-evaluation goes with --teacher, and without --fuse-teacher" in told


def test_nobody_judges_nothing(prepared: Prepared) -> None:
    with pytest.raises(BadInput, match="--teacher uniform: judges no trips; name a served teacher"):
        judge_by_teacher("uniform", prepared, "test", None, None)


@pytest.mark.parametrize("form", FORMS)
def test_a_server_of_an_older_version_is_told_as_such(served: RunningTeacher, form: str) -> None:
    """It describes itself, but has no Likelihood, and no output of that name."""
    with grpc.insecure_channel(served.grpc) as channel:
        described = teacher_pb2_grpc.TeacherServiceStub(channel).Describe(pb.DescribeRequest(), timeout=10)
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")
        config = oip.ModelConfigResponse.FromString(ask(oip.ModelConfigRequest(name="teacher").SerializeToString()))
    del config.config.output[1:]
    answers = {
        "grpc.health.v1.Health/Check": health_pb2.HealthCheckResponse(status=1),
        "teacher.v1.TeacherService/Describe": described,
        "inference.GRPCInferenceService/ModelConfig": config,
        "inference.GRPCInferenceService/ModelReady": oip.ModelReadyResponse(ready=True),
    }
    server = grpc.server(ThreadPoolExecutor(1))
    for method, answer in answers.items():
        service, name = method.split("/")
        handler = grpc.unary_unary_rpc_method_handler(lambda data, _, answer=answer: answer.SerializeToString())
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with (
            reach(form.format(f"127.0.0.1:{port}"), on_loss="fail") as teacher,
            pytest.raises(BadInput, match=f"127.0.0.1:{port}.* is too old to judge whole trips: update it"),
        ):
            teacher.likelihood(TripQuery(np.zeros(2, np.int32), np.array([2])))
    finally:
        server.stop(None)
