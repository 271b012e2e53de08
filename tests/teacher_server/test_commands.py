"""The offline commands as a user meets them: output, files, exit codes, one line for every mistake."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from teacher_server.__main__ import main
from teacher_server.artifact import load_artifact
from tests.teacher_server.full_disk import files_end_at
from tests.teacher_server.token_folders import token_folder

FIT = ["--layers=1", "--heads=2", "--width=16", "--epochs=1", "--batch-size=8", "--device=cpu"]


def teacher(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["teacher", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_from_tokens_to_an_evaluated_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "teacher"
    token_folder(data)
    assert teacher(monkeypatch, "fit", data, "--out", run, *FIT) == 0
    assert "validation perplexity" in capsys.readouterr().out
    assert teacher(monkeypatch, "export", run, "--out", out) == 0
    digest = load_artifact(out).description.digest
    assert capsys.readouterr().out == f"{out}: teacher {digest}\n"
    assert teacher(monkeypatch, "describe", out) == 0
    assert digest in capsys.readouterr().out
    assert teacher(monkeypatch, "describe", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "teacher.json").read_text())
    assert teacher(monkeypatch, "evaluate", out, data, "--out", tmp_path / "e.json", "--device=cpu") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in (digest, "route_switch", "detour", "PR-AUC"))
    assert json.loads((tmp_path / "e.json").read_text())["digest"] == digest


def test_resuming_with_other_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token_folder(tmp_path / "data")
    fit = ("fit", tmp_path / "data", "--out", tmp_path / "run")
    assert teacher(monkeypatch, *fit, *FIT) == 0
    assert teacher(monkeypatch, *fit, "--resume") == 0
    assert teacher(monkeypatch, *fit, "--resume", *FIT) == 0
    capsys.readouterr()
    assert teacher(monkeypatch, *fit, "--resume", "--width=32") == 2
    assert "was started with --width 16; it cannot go on with 32" in capsys.readouterr().err


def test_exporting_golden_checkpoints(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = "37.7795057,37.7999951,-122.4249837,-122.3930031"
    for name, grid in (
        ("weights_only.pt", ("--grid", golden / "grid.json")),
        ("original_checkpoint.pt", ("--bounds", bounds, "--cell", "0.002")),
    ):
        assert teacher(monkeypatch, "export", golden / name, *grid, "--out", tmp_path / name) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.rpartition(" ")[2] == second.rpartition(" ")[2]
    assert teacher(monkeypatch, "export", golden / name, *grid, "--out", tmp_path / name) == 2
    assert teacher(monkeypatch, "export", golden / name, *grid, "--out", tmp_path / name, "--overwrite") == 0


MISTAKES = [
    (("describe", "nowhere"), "nowhere does not exist"),
    (("describe", "data"), "teacher.json does not exist"),
    (("fit", "nowhere", "--out", "run"), "tokens.json does not exist"),
    (("fit", "data", "--out", "data"), "data is not empty"),
    (("fit", "data", "--out", "data/tokens.json"), "is not empty"),
    (("fit", "data", "--out", "run", "--epochs=0"), "epochs must be at least 1, got 0"),
    (("fit", "data", "--out", "run", "--heads=3"), "n_embd 128 is not a multiple of n_head 3"),
    (("fit", "data", "--out", "run", "--resume"), "is no run of `teacher fit`"),
    (("fit", "data", "--out", "run", "--device=tpu"), "unknown device 'tpu'"),
    (("export", "nowhere", "--out", "t"), "nowhere does not exist"),
    (("export", "data", "--out", "t"), "is no run of `teacher fit`"),
    (("export", "data", "--out", "t", "--cell=0.1"), "leave out --grid, --bounds and --cell"),
    (("export", "data/tokens.json", "--out", "t"), "give --grid FILE.json, or --bounds and --cell"),
    (("export", "data/tokens.json", "--out", "t", "--bounds=0,1,0,1"), "give --grid FILE.json"),
    (("export", "data/tokens.json", "--out", "t", "--bounds=0,1,0", "--cell=1"), "--bounds must be"),
    (("export", "data/tokens.json", "--out", "t", "--bounds=1,0,0,1", "--cell=1"), "bounds are empty"),
    (("export", "data/tokens.json", "--out", "t", "--bounds=0,1,0,inf", "--cell=1"), "--bounds 0,1,0,inf"),
    (("export", "data/tokens.json", "--out", "t", "--bounds=0,1,0,1", "--cell=0"), "--cell must be positive"),
    (("export", "data/tokens.json", "--out", "t", "--grid", "g.json"), "g.json does not exist"),
    (("export", "data/tokens.json", "--out", "t", "--grid", "data/tokens.json"), "field grid.min_lat is missing"),
    (("export", "data/tokens.json", "--out", "t", "--bounds=0,1,0,1", "--cell=1"), "zip form of torch.save"),
    (("evaluate", "nowhere", "data"), "nowhere does not exist"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    token_folder(tmp_path / "data")
    assert teacher(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("teacher: error: ")
    assert expected in lines[0]
    assert not (tmp_path / "t").exists()


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token_folder(tmp_path / "data")
    with files_end_at(8_000):
        status = teacher(monkeypatch, "fit", tmp_path / "data", "--out", tmp_path / "run", *FIT)
    expected = "best.safetensors: cannot be written (Error while serializing: I/O error: File too large (os error 27))"
    advice = "make room there, then go on with --resume"
    assert capsys.readouterr().err == f"teacher: error: {tmp_path}/run/{expected}: {advice}\n"
    assert status == 2
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl"}


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = tmp_path / ("x" * 300)
    token_folder(tmp_path / "data")
    assert teacher(monkeypatch, "fit", tmp_path / "data", "--out", name) == 1
    assert capsys.readouterr().err == f"teacher: error: {name}: File name too long\n"
