"""Finished trips on disk while others are under way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.teacher_server.full_disk import files_end_at
from trainer.errors import BadInput, CannotWrite
from trainer.generate.journal import open_journal
from trainer.generate.route import Cost, Found, Route
from trainer.generate.route import Path as RoadPath

MADE_BY: dict[str, Any] = {"search": "beam", "beam_width": 4}


def trip(index: int) -> Found:
    path = RoadPath((index, 4, 5), (1_211_079_838, 1_211_079_840, 1_211_079_847), -0.1 * index)
    return Found(index, Route(path, index % 2 == 0, 7), Cost(0.1, 0.07, 5))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A journal of trips 0, 2 and 1."""
    with open_journal(tmp_path / "trips.csv.unfinished", MADE_BY) as journal:
        assert journal.found == {}
        for index in (0, 2, 1):
            journal.add(trip(index))
    return tmp_path / "trips.csv.unfinished"


def found(file: Path) -> dict[int, Found]:
    with open_journal(file, MADE_BY) as journal:
        return dict(journal.found)


def test_what_was_added_is_found_to_the_last_bit(file: Path) -> None:
    assert found(file) == {index: trip(index) for index in range(3)}
    with open_journal(file, MADE_BY) as journal:
        journal.add(trip(3))
    assert sorted(found(file)) == [0, 1, 2, 3]


def test_cut_off_anywhere(file: Path, tmp_path: Path) -> None:
    """The trips whose lines are whole are there, and more can be added."""
    content = file.read_bytes()
    for length in range(len(content) + 1):
        cut = tmp_path / "cut"
        cut.write_bytes(content[:length])
        whole = max(content[:length].count(b"\n") - 1, 0)
        with open_journal(cut, MADE_BY) as journal:
            assert list(journal.found) == [0, 2, 1][:whole]
            journal.add(trip(9))
        assert list(found(cut)) == [*[0, 2, 1][:whole], 9]


@pytest.mark.parametrize(
    ("made_by", "said"),
    [
        ({"search": "greedy", "beam_width": 4}, "was begun with search beam, not greedy"),
        ({"search": "beam", "beam_width": 5}, "was begun with beam_width 4, not 5"),
        ({"search": "beam", "beam_width": 4, "seed": 1}, "was begun with seed None, not 1"),
        ({"search": "beam"}, "was begun with beam_width 4, not None"),
    ],
)
def test_other_settings_are_refused(made_by: dict[str, Any], said: str, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(BadInput, match="delete it to begin anew") as caught, open_journal(file, made_by):
        pass
    assert str(caught.value).startswith(f"{file}: {said}: give the same settings to go on")
    assert file.read_bytes() == before


@pytest.mark.parametrize("line", [b"{", b"[]", b"7", b'{"index":1}', b'{"index":1,"route":{"path":7}}', b"\xff"])
def test_damaged(line: bytes, file: Path) -> None:
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(BadInput, match=r"unfinished: is damaged \(.*\); delete it to begin anew"), \
            open_journal(file, MADE_BY):  # fmt: skip
        pass
    file.write_bytes(line + b"\n")
    with pytest.raises(BadInput, match=r"delete it to begin anew"), open_journal(file, MADE_BY):
        pass


HOLD = """
import os, sys, pathlib
from trainer.generate.journal import open_journal
with open_journal(pathlib.Path(sys.argv[1]), {"search": "beam", "beam_width": 4}):
    worker = os.fork()  # outlives the one that holds the journal
    if worker == 0:
        os.execlp("sleep", "sleep", "60")
    print(worker, flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time(file: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    worker = int(holder.stdout.readline())
    with pytest.raises(BadInput, match="another process is generating these trips"), open_journal(file, MADE_BY):
        pass
    holder.kill()
    holder.wait()
    assert len(found(file)) == 3
    os.kill(worker, signal.SIGKILL)
    holder.communicate()


def add_many(file: Path) -> None:
    with open_journal(file, MADE_BY) as journal:
        for index in range(100):
            journal.add(trip(index))


def test_a_full_disk(tmp_path: Path) -> None:
    file = tmp_path / "trips.csv.unfinished"
    with files_end_at(1000), pytest.raises(CannotWrite) as caught:
        add_many(file)
    said = "cannot be written (File too large); the same command goes on with what is there"
    assert str(caught.value) == f"{file}: {said}"
    lines = file.read_bytes().split(b"\n")
    kept = [json.loads(line)["index"] for line in lines[1:-1]]
    assert kept == list(range(len(kept)))
    assert list(found(file)) == kept
    assert len(kept) > 3


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="none/trips"), open_journal(tmp_path / "none" / "trips", MADE_BY):
        pass
