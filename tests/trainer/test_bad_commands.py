"""Mistakes in settings, addresses, run folders and generated trips through the real command line."""

from __future__ import annotations

import json
import shutil
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.trainer.datasets import Outcome, files_in, refused, set_field, small_city, trainer
from trainer.teacher.pool import Patience

TINY = ("--set", "optimizer_config.max_epoch=1", "--set", "profiling.log_interval=1")


class Bench:
    """A prepared city, and a run trained on it without a teacher."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = small_city(root / "city")
        self.cache = root / "cache"
        self.run = root / "run"
        outcome = self.train(self.run, "--teacher", "none", *TINY)
        assert outcome.status == 0, outcome.err

    def train(self, out: Path, *words: str | Path, data: Path | None = None) -> Outcome:
        return trainer("train", "--data", data or self.data, "--cache", self.cache, "--out", out, *words)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("distill: {lamda: 0.1}", "unknown key distill.lamda: did you mean distill.lambda?"),
        ("traning: {seed: 1}", "unknown key traning: did you mean training?"),
        ("optimizer_config: {max_epoch: soon}", "optimizer_config.max_epoch = 'soon': must be a valid integer"),
        ("distill: {temperature: hot}", "distill.temperature = 'hot': must be a valid number"),
        ("distill: {enable: [", "not YAML"),
        ("[1, 2]", "must hold sections and keys, not a list"),
        ("wandb: {run_name: 2024-13-45}", "not YAML: month must be in 1..12"),
        ("road_network_encoder_feature: {road_attr: {len: [1]}}", "road_attr.len = [1]: must be None"),
    ],
)
def test_settings(yaml: str, said: str, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml)
    outcome = bench.train(tmp_path / "out", "--config", tmp_path / "c.yaml", "--teacher", "none")
    refused(outcome, f"{tmp_path / 'c.yaml'}: ", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "distill.lambda"), "--set 'distill.lambda': must be section.key=value"),
        (("--set", "distill.lambda=much"), "distill.lambda = 'much': must be a valid number"),
        (("--set", "distil.lambda=1"), "unknown key distil: did you mean distill?"),
        (("--set", "training.seed=[1"), "'[1' is not a YAML value"),
        (("--seed", "-1"), "training.seed = -1: must be greater than or equal to 0"),
        (("--config", "/none.yaml"), "/none.yaml: cannot be read as a config"),
        (("--config", "/tmp"), "/tmp: cannot be read as a config"),
        (("--device", "abacus"), "--device abacus: must be auto, cpu or cuda"),
        (("--set", "trajectory_encoder_config.hidden_dim=64"), "widths do not fit"),
        (
            ("--set", "road_network_encoder_config.zone_id_num_embeddings=2"),
            "zone_id_num_embeddings is 2, the data needs 3",
        ),
        (
            ("--set", "road_network_encoder_config.road_id_num_embeddings=7"),
            "road_id_num_embeddings is 7, the data has 120",
        ),
    ],
)
def test_flags(words: tuple[str, ...], said: str, bench: Bench, tmp_path: Path) -> None:
    refused(bench.train(tmp_path / "out", "--teacher", "none", *words), said)
    assert not files_in(tmp_path)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8000", "teacher address 'http://127.0.0.1:8000': must be local:FOLDER"),
        ("127.0.0.1:8001", "teacher address '127.0.0.1:8001': must be local:FOLDER"),
        ("nobody", "teacher address 'nobody': must be"),
        ("grpc://127.0.0.1:http", "'127.0.0.1:http' is not HOST:PORT"),
        ("grpc://127.0.0.1:99999", "'127.0.0.1:99999' is not HOST:PORT"),
        ("grpc://127.0.0.1:8001,", "'' is not HOST:PORT"),
        ("local:/no/such/artifact", "/no/such/artifact: no such folder; name a teacher artifact"),
    ],
)
def test_addresses(address: str, said: str, bench: Bench, tmp_path: Path) -> None:
    refused(bench.train(tmp_path / "out", "--teacher", address), said)
    refused(bench.train(tmp_path / "out", "--set", f"distill.teacher='{address}'"), said)
    assert not files_in(tmp_path)


def test_nobody_listens(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.guide.Patience", partial(Patience, connect_s=0.3))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        outcome = bench.train(tmp_path / "out", "--teacher", f"grpc://{address}")
    refused(outcome, f"no teacher answers at {address}", status=3)
    assert not files_in(tmp_path)


def test_a_teacher_must_be_named(bench: Bench, tmp_path: Path) -> None:
    refused(
        bench.train(tmp_path / "out"),
        "no teacher: give --teacher local:FOLDER, grpc://HOST:PORT, triton://HOST:PORT/MODEL, labels, uniform or none",
    )
    hinted = bench.train(tmp_path / "out", "--set", "distill.ckpt=/x/weights_only.pt")
    refused(hinted, "no teacher", "distill.ckpt is /x/weights_only.pt: make a teacher of it with `teacher export`")
    assert not files_in(tmp_path)


def test_data_must_be_named(tmp_path: Path) -> None:
    refused(
        trainer("train", "--out", tmp_path / "out", "--teacher", "none"), "no data: give --data FOLDER or set data_dir"
    )


def test_a_run_is_not_written_over(bench: Bench, tmp_path: Path) -> None:
    before = files_in(bench.run)
    refused(bench.train(bench.run, "--teacher", "none", *TINY), f"{bench.run}: is not empty", "--resume")
    (tmp_path / "file").touch()
    refused(bench.train(tmp_path / "file", "--teacher", "none", *TINY), f"{tmp_path / 'file'}: ")
    refused(
        bench.train(tmp_path / "file" / "x", "--teacher", "none", *TINY), f"{tmp_path / 'file' / 'x'}: cannot write"
    )
    assert files_in(bench.run) == before


def test_a_run_goes_on_only_as_it_was(bench: Bench, tmp_path: Path) -> None:
    before = files_in(bench.run)
    cannot = f"{bench.run}: cannot resume, "
    words = ("--resume", *TINY)
    other = bench.train(bench.run, *words, "--teacher", "none", "--set", "optimizer_config.learning_rate=0.1")
    refused(other, cannot, "config.optimizer_config.learning_rate: the run was made with 0.001, this is 0.1")
    refused(bench.train(bench.run, *words, "--teacher", "uniform"), cannot, "teacher: the run was made with none")
    data = small_city(tmp_path / "other", seed=2)
    refused(bench.train(bench.run, *words, "--teacher", "none", data=data), cannot, "data: the run was made with")
    refused(bench.train(tmp_path, *words, "--teacher", "none"), f"{tmp_path}: is not the folder of a training run")
    assert files_in(bench.run) == before


def test_a_finished_run_resumes_to_the_same_summary(bench: Bench) -> None:
    """The control: with the same settings --resume is fine."""
    before = json.loads((bench.run / "summary.json").read_text())
    outcome = bench.train(bench.run, "--resume", "--teacher", "none", *TINY)
    assert outcome.status == 0, outcome.err
    after = json.loads((bench.run / "summary.json").read_text())
    assert after["next_step_accuracy"] == before["next_step_accuracy"]


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_what_is_no_run(command: str, bench: Bench, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none", bench.data):
        refused(trainer(command, folder), f"{folder}: is not the folder of a training run")
    headless = Path(shutil.copytree(bench.run, tmp_path / "headless"))
    shutil.rmtree(headless / "checkpoints")
    refused(
        trainer(command, headless, "--cache", bench.cache), f"{headless}/checkpoints/best.safetensors: no such file"
    )
    damaged = Path(shutil.copytree(bench.run, tmp_path / "damaged"))
    best = damaged / "checkpoints" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:1000])
    refused(trainer(command, damaged, "--cache", bench.cache), f"{best}: not a student checkpoint")
    (damaged / "origin.json").write_text("[]")
    refused(trainer(command, damaged, "--cache", bench.cache), f"{damaged}: is not the folder of a training run")


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_student_of_other_data(command: str, bench: Bench, tmp_path: Path) -> None:
    data = small_city(tmp_path / "other", roads=140)
    refused(trainer(command, bench.run, "--data", data, "--cache", bench.cache), "best.safetensors", "other data")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--search", "dijkstra"), "--search must be one of best-first, beam, greedy, sample, not 'dijkstra'"),
        (("--od", "val"), "--od must be train or test, not 'val'"),
        (("--temperature", "2"), "--temperature is for --search sample, not for best-first"),
        (("--search", "sample", "--temperature", "0"), "--temperature must be greater than 0 and finite, not 0.0"),
        (("--search", "sample", "--temperature", "nan"), "--temperature must be greater than 0 and finite, not nan"),
        (("--od-file", "{root}/none.csv"), "/none.csv: no such file"),
        (("--od-file", "{root}/od.csv"), "/od.csv:3: origin_road_id: unknown road id (roadmap.geo has 0..119): '120'"),
        (("--out", "{root}/none/trips.csv"), "/none/trips.csv: is a folder or lies in none"),
        (("--out", "{root}/trips.json"), "/trips.json: this name is for the description"),
        (("--out", "{root}"), ": is a folder or lies in none"),
        (("--device", "cuda:x"), "--device cuda:x: must be auto, cpu or cuda"),
    ],
)
def test_generate(words: tuple[str, ...], said: str, bench: Bench, tmp_path: Path) -> None:
    time = "2008-01-01T00:00:00Z"
    od = f"origin_road_id,destination_road_id,source_origin_time\n0,1,{time}\n120,1,{time}\n"
    (tmp_path / "od.csv").write_text(od)
    filled = [word.format(root=tmp_path) for word in words]
    refused(trainer("generate", bench.run, "--cache", bench.cache, *filled), said)
    assert list(files_in(tmp_path)) == ["od.csv"]


def test_going_on_with_finished_trips_that_took_no_time(bench: Bench, tmp_path: Path) -> None:
    """All of them are where they want to be."""
    (tmp_path / "od.csv").write_text(
        "origin_road_id,destination_road_id,source_origin_time\n5,5,2008-01-01T00:00:00Z\n"
    )
    out = tmp_path / "out.csv"
    words = ("generate", bench.run, "--cache", bench.cache, "--od-file", tmp_path / "od.csv", "--out", out)
    (tmp_path / "out.json").mkdir()  # in the way
    refused(trainer(*words), "cannot be written", status=1)
    (tmp_path / "out.json").rmdir()
    outcome = trainer(*words)
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "out.json").read_text())["resumed_trips"] == 1


@pytest.fixture(scope="module")
def trips(bench: Bench) -> Path:
    """Trips generated by the run."""
    file = bench.root / "trips.csv"
    outcome = trainer(
        "generate", bench.run, "--cache", bench.cache, "--count", "3", "--search", "greedy", "--out", file
    )
    assert outcome.status == 0, outcome.err
    return file


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("gene_trace_road_id", "1, 2", "gene_trace_road_id is not a JSON list of road ids"),
        ("gene_trace_road_id", "[1]", "roads and times differ in number"),
        ("gene_trace_road_id", "[]", "a trip needs one road or more"),
        ("gene_trace_datetime", '["today"]', "roads and times differ in number"),
        ("destination_road_id", "120", "destination_road_id is not a road (roadmap.geo has 0..119)"),
    ],
)
def test_generated_trips(column: str, value: str, said: str, bench: Bench, trips: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copy(trips, tmp_path / "bad.csv"))
    line = set_field(bad, 1, column, value)
    words = ("--cache", bench.cache, "--generated", bad, "--out", tmp_path / "report.json")
    refused(trainer("evaluate", bench.run, *words), f"{bad}:{line}: ", said)
    assert list(files_in(tmp_path)) == ["bad.csv"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--split", "dev"), "--split must be train, val or test, not 'dev'"),
        (("--od-cell", "big"), "OD cell 'big'"),
        (("--generated", "/none/trips.csv"), "/none/trips.csv: no such file"),
        (("--fuse-teacher", "0.5"), "--fuse-teacher needs --teacher"),
        (("--fuse-teacher", "0.5", "--teacher", "uniform"), "--fuse-teacher needs --teacher"),
        (("--fuse-teacher", "0.5", "--teacher", "local:/none"), "/none: no such folder"),
    ],
)
def test_evaluate(words: tuple[str, ...], said: str, bench: Bench, tmp_path: Path) -> None:
    refused(trainer("evaluate", bench.run, "--cache", bench.cache, "--out", tmp_path / "report.json", *words), said)
    assert not files_in(tmp_path)


@pytest.mark.parametrize("out", ["beam.json", "here/../beam.json", "beam.csv", "new.npz", "judge.json", "new"])
def test_an_evaluation_never_replaces_what_it_reads(out: str, bench: Bench, trips: Path, tmp_path: Path) -> None:
    for suffix in (".csv", ".json"):
        shutil.copy(trips.with_suffix(suffix), tmp_path / f"beam{suffix}")
    (tmp_path / "here").mkdir()
    (tmp_path / "judge.json").write_text("{}")
    before = files_in(tmp_path)
    words = ("--generated", tmp_path / "beam.csv", "--teacher", "none", "--teacher-evaluation", tmp_path / "judge.json")
    outcome = trainer("evaluate", bench.run, "--cache", bench.cache, *words, "--out", tmp_path / out)
    refused(outcome, f"{tmp_path / out}: ", "name another --out")
    assert files_in(tmp_path) == before


def test_an_evaluation_never_replaces_the_parts_of_its_run(bench: Bench, trips: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(bench.run, tmp_path / "run"))
    for suffix in (".csv", ".json"):
        shutil.copy(trips.with_suffix(suffix), run / f"evaluation{suffix}")
    before = files_in(run)
    for name in ("generated.json", "origin.json", "summary.json"):
        outcome = trainer("evaluate", run, "--cache", bench.cache, "--out", run / name)
        refused(outcome, f"{run / name}: ", "name another --out")
    outcome = trainer("evaluate", run, "--cache", bench.cache, "--generated", run / "evaluation.csv")
    refused(outcome, f"{run / 'evaluation.json'}: ", "name another --out")
    assert files_in(run) == before


def test_good_trips_evaluate(bench: Bench, trips: Path, tmp_path: Path) -> None:
    """The control for all of the above."""
    words = ("--cache", bench.cache, "--generated", trips, "--out", tmp_path / "report.json")
    outcome = trainer("evaluate", bench.run, *words)
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "report.json").read_text())["generated_trips"] == 3


def test_bad_trips_are_skipped_and_counted(bench: Bench, trips: Path, tmp_path: Path) -> None:
    bad, report = Path(shutil.copy(trips, tmp_path / "bad.csv")), tmp_path / "report.json"
    set_field(bad, 1, "gene_trace_road_id", "[]")
    words = ("--cache", bench.cache, "--generated", bad, "--out", report, "--skip-bad")
    outcome = trainer("evaluate", bench.run, *words)
    assert outcome.status == 0, outcome.err
    figures = json.loads(report.read_text())
    assert figures["generated_trips"] == 2
    assert figures["dropped_trips"] == {"a trip needs one road or more": 1}
    assert "dropped: a trip needs one road or more" in outcome.out
    assert figures["data_fingerprint"] == json.loads((bench.run / "origin.json").read_text())["data_fingerprint"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_fingerprint": "0" * 64}, "was generated on other data (0000000000000000)"),
        ({"model_digest": "1" * 64}, "was generated by another student (1111111111111111)"),
    ],
)
def test_trips_of_others_are_refused(
    change: dict[str, str], said: str, bench: Bench, trips: Path, tmp_path: Path
) -> None:
    for suffix in (".csv", ".json"):
        shutil.copy(trips.with_suffix(suffix), tmp_path / f"trips{suffix}")
    beside = tmp_path / "trips.json"
    beside.write_text(json.dumps(json.loads(beside.read_text()) | change))
    words = ("--cache", bench.cache, "--generated", tmp_path / "trips.csv", "--out", tmp_path / "report.json")
    refused(trainer("evaluate", bench.run, *words), f"{tmp_path / 'trips.csv'}: ", said)
    assert not (tmp_path / "report.json").exists()
