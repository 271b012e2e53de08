"""Run folders: what a run was made from, whether another may continue it, and its log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.errors import BadInput
from trainer.run_folder import Origin, RunFolder, write_json, write_text
from trainer.tracking import EPOCH_FIGURE, MetricsLog

ORIGIN = Origin({"distill": {"lambda": 0.1, "window": "full"}, "seed": 1}, "f" * 64, "none")


def test_create_and_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "run")
    folder.create(ORIGIN, ORIGIN.config, {"version": "1"})
    assert folder.origin() == ORIGIN
    assert json.loads((folder.root / "origin.json").read_text())["version"] == "1"
    assert folder.last.parent.is_dir()
    with pytest.raises(BadInput, match="is not empty; continue this run with --resume or name another --out"):
        folder.create(ORIGIN, {}, {})


def test_an_empty_folder_will_do_and_a_file_will_not(tmp_path: Path) -> None:
    RunFolder(tmp_path).create(ORIGIN, {}, {})
    for bad in (tmp_path / "origin.json", tmp_path / "origin.json" / "run"):
        with pytest.raises(BadInput) as caught:
            RunFolder(bad).create(ORIGIN, {}, {})
        assert str(caught.value).startswith(f"{bad}: ")


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "3", "{}", '{"config": {}, "data_fingerprint": "x"}', b"\xff"]
)
def test_what_is_no_run(content: str | bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "origin.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match="is not the folder of a training run"):
        RunFolder(tmp_path).origin()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (ORIGIN, None),
        (Origin(ORIGIN.config, "e" * 64, "none"), f"data: the run was made with {'f' * 16}, this is {'e' * 16}"),
        (Origin(ORIGIN.config, "f" * 64, "abc"), "teacher: the run was made with none, this is abc"),
        (
            Origin({"distill": {"lambda": 0.2, "window": "full"}, "seed": 1}, "f" * 64, "none"),
            "config.distill.lambda: the run was made with 0.1, this is 0.2",
        ),
        (
            Origin({"distill": {"lambda": 0.1, "window": "full"}}, "f" * 64, "none"),
            "config.seed: the run was made with 1, this is None",
        ),
    ],
)
def test_the_first_difference_names_both_sides(other: Origin, said: str | None) -> None:
    assert ORIGIN.difference(other) == said


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "two")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.txt", {"x": float("nan")})
    assert (tmp_path / "a.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_resumed_log_goes_on_where_the_checkpoint_stands(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log = MetricsLog(file, 0, 0)
    for step in (10, 20, 30):
        log.write(step, {"loss": step / 10})
    log.close()
    with file.open("a") as stream:
        stream.write('not json\n[1]\n{"loss": 1}\n{"step": 40, "lo')
    log = MetricsLog(file, 20, 0)
    log.write(25, {"loss": 0.5})
    log.close()
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 2.0},
        {"step": 25, "loss": 0.5},
    ]


def test_an_epoch_that_was_not_saved_as_finished_is_logged_anew(tmp_path: Path) -> None:
    """Its line is written before the checkpoint; a kill in between leaves one of the two."""
    file = tmp_path / "metrics.jsonl"
    log = MetricsLog(file, 0, 0)
    for epoch in (0, 1):
        log.write(10 * epoch + 10, {"epoch": epoch, "loss": 1.0})
        log.write(10 * epoch + 10, {"epoch": epoch, EPOCH_FIGURE: 0.5})
    log.close()
    MetricsLog(file, 20, 1).close()
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], EPOCH_FIGURE in line) for line in kept] == [(10, False), (10, True), (20, False)]
