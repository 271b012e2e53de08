"""`trainer bundle` on a real run: what is in it, that it can be used, and which runs are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from geojson_pydantic import FeatureCollection

from tests.teacher_server.full_disk import files_end_at
from tests.trainer.datasets import Outcome, files_in, refused, rows_of, set_field, small_city, trainer
from trainer.bundle.pack import write_bundle
from trainer.bundle.parts import gather
from trainer.errors import BadInput

PARTS = {
    "MODEL_CARD.md",
    "SHA256SUMS",
    "checkpoints/best.safetensors",
    "config.yaml",
    "evaluation.json",
    "evaluation.npz",
    "generated.csv",
    "generated.geojson",
    "generated.json",
    "manifest.json",
    "metrics.jsonl",
    "origin.json",
    "report.html",
    "summary.json",
}


class Bench:
    """A city, a run with all that a run can have, and how to bundle it."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.cache, self.run = (
            root,
            small_city(root / "city"),
            root / "cache",
            root / "runs" / "a",
        )
        epoch = ("--teacher", "none", "--set", "optimizer_config.max_epoch=1")
        self.do("train", "--data", self.data, "--out", self.run, *epoch)
        self.do("generate", self.run, "--count", "5", "--search", "greedy")
        self.do("evaluate", self.run)
        digest = hashlib.sha256((self.run / "checkpoints/best.safetensors").read_bytes()).hexdigest()
        (self.run / "report.html").write_text(f"<p>About student {digest}</p>")
        self.archive = root / "a.zip"
        self.said = self.bundle(self.run, self.archive)
        assert self.said.status == 0, self.said.err

    def do(self, *words: str | Path) -> None:
        outcome = trainer(*words, "--cache", self.cache)
        assert outcome.status == 0, outcome.err

    def bundle(self, run: Path, out: Path, *words: str | Path) -> Outcome:
        return trainer("bundle", run, "--out", out, "--cache", self.cache, *words)

    def copy(self, to: Path) -> Path:
        return Path(shutil.copytree(self.run, to))

    def unpacked(self, to: Path) -> Path:
        with ZipFile(self.archive) as archive:
            archive.extractall(to)
        return to


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bundle"))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_what_is_in_it(bench: Bench, tmp_path: Path) -> None:
    folder = bench.unpacked(tmp_path / "b")
    assert set(files_in(folder)) == PARTS
    for name in PARTS - {"MODEL_CARD.md", "SHA256SUMS", "manifest.json", "generated.geojson"}:
        assert (folder / name).read_bytes() == (bench.run / name).read_bytes(), name
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == PARTS - {"SHA256SUMS", "manifest.json"}
    for name, part in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert part == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert manifest["model_digest"] == manifest["files"]["checkpoints/best.safetensors"]["sha256"]
    assert "trainer: note" not in bench.said.err


def test_it_says_what_it_wrote(bench: Bench) -> None:
    whole = hashlib.sha256(bench.archive.read_bytes()).hexdigest()
    assert bench.said.out.startswith(f"{bench.archive}: is written: 12 files, ")
    assert f"teacher none; SHA-256 {whole}" in bench.said.out
    checked = trainer("bundle", "--verify", bench.archive)
    assert (checked.status, checked.err) == (0, "")
    assert checked.out == bench.said.out.replace("is written", "is whole")


def test_the_sums_are_those_of_sha256sum(bench: Bench, tmp_path: Path) -> None:
    folder = bench.unpacked(tmp_path / "b")
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder, check=False).returncode == 0
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == len(PARTS) - 1
    (folder / "config.yaml").write_text("x")
    assert subprocess.run(check, cwd=folder, check=False, capture_output=True).returncode == 1


def test_trips_as_lines(bench: Bench, tmp_path: Path) -> None:
    folder = bench.unpacked(tmp_path / "b")
    valid = FeatureCollection.model_validate_json((folder / "generated.geojson").read_text())
    rows = rows_of(bench.run / "generated.csv")
    assert len(valid.features) == len(rows) == 5
    for feature, row in zip(valid.features, rows, strict=True):
        properties = feature.properties
        assert isinstance(properties, dict)
        assert properties["gene_trace_road_id"] == json.loads(row["gene_trace_road_id"])
        assert properties["gene_trace_datetime"] == json.loads(row["gene_trace_datetime"])
        assert str(properties["origin_road_id"]) == row["origin_road_id"]
        assert str(properties["destination_road_id"]) == row["destination_road_id"]
        assert str(properties["reached"]) == row["reached"]
        assert properties["start"] == row["source_origin_time"]


def test_the_card_tells_what_when_and_how_many(bench: Bench, tmp_path: Path) -> None:
    card = (bench.unpacked(tmp_path / "b") / "MODEL_CARD.md").read_text()
    summary = json.loads((bench.run / "summary.json").read_text())
    assert f"| student | SHA-256 `{summary['model_digest']}`" in card
    assert f"| data | fingerprint `{summary['data_fingerprint']}` |" in card
    assert "| teacher | none: plain HOSER |" in card
    assert f"| `choice_accuracy` | {summary['choice_accuracy']:.4f} | {summary['choice_steps']} steps |" in card
    assert "On the `test` trips of data" in card
    assert "| `compared_pairs` | 5 |" in card
    assert "max_epoch: 1" in card
    for said in ("## Limits", "## How to load", "trainer generate FOLDER --data CITY"):
        assert said in card


def test_the_same_run_makes_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    """Also from another folder, at another time, and from an unpacked bundle."""
    whole = bench.archive.read_bytes()
    for folder in (bench.run, bench.copy(tmp_path / "elsewhere"), bench.unpacked(tmp_path / "unpacked")):
        assert bench.bundle(folder, tmp_path / "again.zip").status == 0
        assert (tmp_path / "again.zip").read_bytes() == whole


def test_an_unpacked_bundle_is_a_run(bench: Bench, tmp_path: Path) -> None:
    folder = bench.unpacked(tmp_path / "b")
    where = ("--data", bench.data)
    bench.do("generate", folder, *where, "--count", "5", "--search", "greedy", "--out", tmp_path / "new.csv")
    assert (tmp_path / "new.csv").read_bytes() == (bench.run / "generated.csv").read_bytes()
    bench.do("evaluate", folder, *where, "--out", tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text()) == json.loads((bench.run / "evaluation.json").read_text())
    before = files_in(folder)
    words = ("--teacher", "none", "--set", "optimizer_config.max_epoch=1", "--cache", bench.cache)
    refused(
        trainer("train", "--data", bench.data, "--out", folder, "--resume", *words),
        f"{folder}: has a student but no checkpoints/last.pt, so it cannot go on",
    )
    assert files_in(folder) == before


def test_a_run_without_trips_needs_no_data(bench: Bench, tmp_path: Path) -> None:
    run = bench.copy(tmp_path / "run")
    for name in ("generated.csv", "generated.json", "evaluation.json", "evaluation.npz", "report.html"):
        (run / name).unlink()
    edit(run / "origin.json", lambda origin: origin.pop("data"))
    outcome = bench.bundle(run, tmp_path / "b.zip")
    assert outcome.status == 0, outcome.err
    for name, writer in (("generated.csv", "generate RUN"), ("evaluation.json", "evaluate"), ("report.html", "report")):
        assert f"trainer: note: no {name} in it (trainer {writer}" in outcome.err
    assert trainer("bundle", "--verify", tmp_path / "b.zip").status == 0


def test_which_run_is_meant_is_never_guessed(bench: Bench, tmp_path: Path) -> None:
    refused(trainer("bundle", "--out", tmp_path / "b.zip"), "give RUN and --out FILE.zip, or --verify FILE")
    refused(trainer("bundle", bench.run), "give RUN and --out FILE.zip")
    refused(trainer("bundle", bench.run, "--verify", bench.archive), "--verify FILE stands alone")
    for folder in (bench.run.parent, bench.root):
        refused(bench.bundle(folder, tmp_path / "b.zip"), f"{folder}: holds several runs; name one", str(bench.run))
    for folder in (tmp_path, bench.data, tmp_path / "none"):
        refused(bench.bundle(folder, tmp_path / "b.zip"), f"{folder}: is not the folder of a training run")
    for target in (tmp_path, tmp_path / "none" / "b.zip", bench.run / "summary.json"):
        refused(bench.bundle(bench.run, target), f"{target}: ", "name another --out")
    assert not files_in(tmp_path)


def test_an_unfinished_run_must_be_asked_for(bench: Bench, tmp_path: Path) -> None:
    run = bench.copy(tmp_path / "run")
    (run / "summary.json").unlink()
    refused(bench.bundle(run, tmp_path / "b.zip"), f"{run}: is not finished", "--resume", "--unfinished")
    assert not (tmp_path / "b.zip").exists()
    assert bench.bundle(run, tmp_path / "b.zip", "--unfinished").status == 0
    with ZipFile(tmp_path / "b.zip") as archive:
        assert "| training | **not finished** |" in archive.read("MODEL_CARD.md").decode()


OTHER = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("summary.json", "model_digest", "summary.json: is of another student (0123456789abcdef)"),
        ("evaluation.json", "model_digest", "evaluation.json: is of another student (0123456789abcdef)"),
        ("evaluation.json", "generated_digest", "evaluation.json: is about other trips than generated.csv"),
        ("evaluation.json", "trips_digest", "evaluation.npz: is not what evaluation.json was made with"),
        ("generated.json", "model_digest", "generated.json: is of another student (0123456789abcdef)"),
        ("generated.json", "data_fingerprint", "generated.csv: was generated on data 0123456789abcdef"),
        ("origin.json", "data_fingerprint", "best.safetensors: was trained with data"),
        ("origin.json", "teacher", "best.safetensors: was trained with teacher None, the run with 0123456789abcdef"),
    ],
)
def test_parts_of_other_runs(name: str, key: str, said: str, bench: Bench, tmp_path: Path) -> None:
    run = bench.copy(tmp_path / "run")
    edit(run / name, lambda content: content.update({key: OTHER}))
    refused(bench.bundle(run, tmp_path / "b.zip"), said)
    assert not (tmp_path / "b.zip").exists()


def test_the_data_is_read_as_the_run_was_trained_on_it(bench: Bench, tmp_path: Path) -> None:
    """A flag about bad trips makes other data of it only where other data is named."""
    assert bench.bundle(bench.run, tmp_path / "b.zip", "--skip-bad").status == 0
    assert (tmp_path / "b.zip").read_bytes() == bench.archive.read_bytes()
    other = ("--skip-bad", "--data", bench.data)
    refused(bench.bundle(bench.run, tmp_path / "c.zip", *other), "was generated on data", "--skip-bad")


def test_other_parts_that_do_not_fit(bench: Bench, tmp_path: Path) -> None:
    def refusal(*words: str) -> None:
        refused(bench.bundle(tmp_path / "run", tmp_path / "b.zip"), *words)
        shutil.rmtree(tmp_path / "run")
        assert not list(tmp_path.iterdir())

    run = bench.copy(tmp_path / "run")
    edit(run / "origin.json", lambda origin: origin["config"]["training"].update(seed=7))
    refusal(f"{run}/checkpoints/best.safetensors: training.seed is not that of the run (origin.json)")
    text = bench.copy(run).joinpath("config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("seed: 42", "seed: 43"))
    refusal(f"{run}/config.yaml: training.seed is not that of the run (origin.json)")
    bench.copy(run).joinpath("generated.json").unlink()
    refusal("generated.csv and generated.json belong together")
    bench.copy(run).joinpath("report.html").write_text("<p>of something else</p>")
    refusal(f"{run}/report.html: does not tell of this student")
    bench.copy(run).joinpath("evaluation.json").write_text("[1]")
    refusal(f"{run}/evaluation.json: not a JSON object")
    bench.copy(run).joinpath("config.yaml").unlink()
    refusal(f"{run}/config.yaml: no such file")
    for file in bench.copy(run).glob("evaluation.*"):
        file.unlink()
    with (run / "generated.csv").open("a") as stream:
        stream.write((run / "generated.csv").read_text().splitlines()[1] + "\n")
    refusal(f"{run}/generated.csv: holds 6 trips, generated.json says 5: generate again")
    for file in bench.copy(run).glob("evaluation.*"):
        file.unlink()
    line = set_field(run / "generated.csv", 2, "gene_trace_road_id", "[1, 120]")
    set_field(run / "generated.csv", 2, "gene_trace_datetime", '["2008-01-01T00:00:00Z", "2008-01-01T00:00:00Z"]')
    refusal(f"{run}/generated.csv:{line}: unknown road id (roadmap.geo has 0..119): '120'")


def test_files_that_change_while_they_are_read(bench: Bench, tmp_path: Path) -> None:
    run = bench.copy(tmp_path / "run")
    for file in (*run.glob("generated.*"), *run.glob("evaluation.*")):
        file.unlink()
    parts = gather(run, unfinished=False)
    (run / "metrics.jsonl").write_text("{}")
    with pytest.raises(BadInput, match=r"metrics\.jsonl: changed while it was bundled"):
        write_bundle(tmp_path / "b.zip", parts, None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_full_disk_leaves_what_was_there(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_text("before")
    with files_end_at(100_000):
        refused(bench.bundle(bench.run, tmp_path / "b.zip"), "b.zip: cannot be written (File too large)", status=1)
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]
    assert (tmp_path / "b.zip").read_text() == "before"


def test_a_damaged_archive_is_one_line_and_a_status(bench: Bench, tmp_path: Path) -> None:
    whole = bench.archive.read_bytes()
    bad = tmp_path / "bad.zip"
    bad.write_bytes(whole[:-1])
    refused(trainer("bundle", "--verify", bad), f"{bad}: not a bundle, or cut off")
    middle = len(whole) // 2
    bad.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    refused(trainer("bundle", "--verify", bad), f"{bad}: damaged (checkpoints/best.safetensors: ")
    refused(
        trainer("bundle", "--verify", tmp_path / "none.zip"), "none.zip: cannot be read (No such file or directory)"
    )


def test_an_imported_student_is_finished(bench: Bench, tmp_path: Path) -> None:
    assert trainer("export", bench.run, "--out", tmp_path / "original.pt").status == 0
    bench.do("import", tmp_path / "original.pt", "--data", bench.data, "--out", tmp_path / "run")
    outcome = bench.bundle(tmp_path / "run", tmp_path / "b.zip")
    assert outcome.status == 0, outcome.err
    with ZipFile(tmp_path / "b.zip") as archive:
        assert "imported checkpoint of the original HOSER" in archive.read("MODEL_CARD.md").decode()
