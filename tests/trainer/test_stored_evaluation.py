"""What an evaluation leaves on disk, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer import provenance
from trainer.errors import BadInput, CannotWrite
from trainer.evaluate.stored import read_evaluation, write_evaluation
from trainer.evaluate.tables import SHOWN, show_evaluation

TRIPS = {"line": np.array([2, 3]), "EDR": np.array([0.5, np.nan])}


def test_back_and_forth(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    write_evaluation(file, {"EDR": 0.5}, TRIPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "evaluation.npz"]
    found = read_evaluation(file)
    assert found.figures["EDR"] == 0.5
    assert {name: values.tolist()[0] for name, values in found.trips.items()} == {"line": 2, "EDR": 0.5}
    first = (tmp_path / "evaluation.npz").read_bytes()
    write_evaluation(file, {"EDR": 0.5}, TRIPS)
    assert (tmp_path / "evaluation.npz").read_bytes() == first


def test_without_generated_trips_there_is_one_file(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "e.json", {"next_step_accuracy": 0.5}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]
    assert read_evaluation(tmp_path / "e.json").trips == {}


def test_entries_of_an_earlier_evaluation_do_not_stay(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "e.json", {"EDR": 0.5}, TRIPS)
    write_evaluation(tmp_path / "e.json", {"next_step_accuracy": 0.5}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "e.json"
    with pytest.raises(BadInput, match=r"e\.json: cannot be read \(No such file or directory\)"):
        read_evaluation(file)
    for broken in ("{", "[]", "[" * 99_999):
        file.write_text(broken)
        with pytest.raises(BadInput, match=r"e\.json: is not what trainer evaluate writes"):
            read_evaluation(file)
    write_evaluation(file, {}, TRIPS)
    beside = tmp_path / "e.npz"
    content = beside.read_bytes()
    beside.write_bytes(content[:-1] + b"x")
    with pytest.raises(BadInput, match=r"e\.npz: is not the file that belongs to e\.json"):
        read_evaluation(file)
    beside.unlink()
    with pytest.raises(BadInput, match=r"e\.npz: cannot be read"):
        read_evaluation(file)


def test_a_failed_write_leaves_the_figures_as_they_were(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "e.json", {"EDR": 0.5}, {})
    before = (tmp_path / "e.json").read_bytes()
    (tmp_path / "e.npz").mkdir()  # in the way
    with pytest.raises(CannotWrite):
        write_evaluation(tmp_path / "e.json", {"EDR": 0.7}, TRIPS)
    assert (tmp_path / "e.json").read_bytes() == before


def test_names_in_the_table_are_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    empty = dict.fromkeys(("generated_trips", "real_trips", "compared_pairs", *SHOWN.values())) | {
        "empty": "no [/b] trips"
    }
    figures = {"EDR": 0.5, "dropped_trips": {"bad [/b]": 2}, "scenarios": {"day": {"week[/b]": empty}}}
    show_evaluation("runs/[bold]a[/b]:x:", figures)
    said = capsys.readouterr().out
    for name in ("runs/[bold]a[/b]:x:", "dropped: bad [/b]", "week[/b]: empty, no [/b] trips"):
        assert name in said


def test_the_program_says_which_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = provenance.program()
    assert made["version"] == provenance.__version__
    if (provenance.ROOT / ".git").exists():
        assert made["commit"] is None or len(made["commit"].removesuffix("-dirty")) == 40
    monkeypatch.setattr(provenance, "ROOT", tmp_path)  # installed
    provenance.program.cache_clear()
    assert provenance.program()["commit"] is None
    (tmp_path / ".git").write_text("no repository")
    provenance.program.cache_clear()
    assert provenance.program()["commit"] is None
    provenance.program.cache_clear()
