"""A disk that is really full while a run trains or labels are made: one message, and nothing that was there is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import test_label as labelling
from tests.integration.line import Line
from tests.integration.runs import assert_equal, begin, epochs, steps_logged, train, wait_for_step
from tests.serving import RunningTeacher, calls

pytestmark = pytest.mark.system

PAGE, WINDOW = 4096, 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "disk", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path, pages_left: int = 0) -> Path:
    """A file that takes all the room there is, but for some pages."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 20))
    os.truncate(filler, filler.stat().st_size - pages_left * PAGE)
    return filler


def pages(folder: Path) -> int:
    """Of all files in it."""
    return sum(-(-path.stat().st_size // PAGE) for path in folder.rglob("*") if path.is_file())


def the_error(errors: str) -> str:
    (found,) = [text for text in errors.splitlines() if text.startswith("trainer: error: ")]
    return found


def test_a_run_ends_with_a_message_and_goes_on_when_there_is_room(line: Line, disk: Path, tmp_path: Path) -> None:
    out, flags = disk / "run", ("--teacher", "none", *epochs(6))
    process = begin(line, out, *flags)
    try:
        wait_for_step(out, 2, process)
        filler = fill(disk)
        _, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "cannot be written" in the_error(errors)
    assert not list(disk.rglob("*.partial"))
    filler.unlink()
    train(line, out, "--resume", *flags)
    train(line, tmp_path / "undisturbed", *flags)
    assert_equal(tmp_path / "undisturbed", out)
    assert steps_logged(out) == steps_logged(tmp_path / "undisturbed")


def test_labels_that_have_their_room_are_made_all_the_same(
    line: Line, served: RunningTeacher, disk: Path, tmp_path: Path
) -> None:
    """Room is taken before the first question, also for a window's answers, kept apart until all are there."""
    address = f"grpc://{served.grpc}"
    labelling.label(line, tmp_path / "undisturbed", address, WINDOW)
    made = labelling.contents(tmp_path / "undisturbed")

    filler = fill(disk, pages_left=pages(tmp_path / "undisturbed") + 1)  # for the labels, but not for the answers
    asked = calls(served)
    _, errors = labelling.end(labelling.begin(line, disk / "labels", address, WINDOW), 1)
    assert f"{disk / 'labels'}: labels need " in the_error(errors)
    assert "make room or name another folder with --labels" in the_error(errors)
    assert calls(served) == asked
    filler.unlink()

    process = labelling.begin(line, disk / "labels", address, WINDOW)
    labelling.stop_at(process, disk / "labels", 5, signal.SIGSTOP)
    fill(disk)
    process.send_signal(signal.SIGCONT)
    labelling.end(process)
    assert labelling.contents(disk / "labels") == made
