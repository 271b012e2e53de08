"""Values from files: read again when the files change, kept when the new ones are broken."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from teacher_server.errors import BadSettings
from teacher_server.watched import Watched


def number_in(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        raise BadSettings(f"{file} holds no number") from None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def test_it_reads_again_only_when_the_file_changes(file: Path) -> None:
    reads: list[int] = []

    def load() -> int:
        reads.append(number_in(file))
        return reads[-1]

    watched = Watched((file,), load)
    assert [watched.value(), watched.value()] == [1, 1]
    file.write_text("22")
    assert [watched.value(), watched.value()] == [22, 22]
    assert reads == [1, 22]


def test_a_file_that_another_takes_the_place_of_is_seen_behind_a_link(tmp_path: Path) -> None:
    """So do Kubernetes secrets change: a link to a folder is moved to another one."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "number").write_text(name)
        os.utime(tmp_path / name / "number", (0, 0))
    link = tmp_path / "now"
    link.symlink_to("1")
    watched = Watched((link / "number",), lambda: number_in(link / "number"))
    assert watched.value() == 1
    (tmp_path / "fresh").symlink_to("2")
    os.replace(tmp_path / "fresh", link)
    assert watched.value() == 2


@pytest.mark.parametrize("broken", ["no number", None])
def test_a_broken_file_keeps_the_old_value_and_is_one_line(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched((file,), lambda: number_in(file))
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    with caplog.at_level(logging.INFO, "teacher"):
        assert [watched.value(), watched.value(), watched.value()] == [1, 1, 1]
    assert caplog.messages == [f"{file} holds no number; what was read before stays in use"]
    file.write_text("333")
    assert watched.value() == 333


def test_at_the_start_a_broken_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="holds no number"):
        Watched((tmp_path / "none",), lambda: number_in(tmp_path / "none"))


def test_files_that_change_while_they_are_read_are_read_once_more(file: Path) -> None:
    contents = iter(["3333", "44444"])

    def load() -> int:
        number = number_in(file)
        if number == 22:  # somebody writes after our reading
            file.write_text(next(contents))
        return number

    watched = Watched((file,), load)
    file.write_text("22")
    assert watched.value() == 1  # neither the one nor the other can be trusted yet
    assert watched.value() == 3333
