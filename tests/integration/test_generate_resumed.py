"""Generating that is killed, runs out of disk or uses several processes ends with the very same file."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.line import Line

pytestmark = pytest.mark.slow

COUNT = 400


def command(line: Line, run: Path, out: Path, *flags: str) -> list[str]:
    words = ("generate", run, "--cache", line.cache, "--out", out, "--count", COUNT, "--search", "sample", *flags)
    return [sys.executable, "-m", "trainer", *map(str, words)]


def journal_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.unfinished")


def finish(line: Line, run: Path, out: Path, *flags: str, status: int = 0) -> str:
    done = subprocess.run(command(line, run, out, *flags), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert status or not journal_of(out).exists()
    return done.stderr


@pytest.fixture(scope="module")
def whole(line: Line, plain_run: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "trips.csv"
    finish(line, plain_run, out)
    return out.read_bytes()


def interrupt(words: list[str], out: Path, act: Callable[[subprocess.Popen[bytes]], None]) -> tuple[int, str]:
    """Starts generating, and acts once some trips are finished; the status and what was said."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if journal_of(out).exists() and journal_of(out).read_bytes().count(b"\n") > 20:
            break
        time.sleep(0.002)
    act(process)
    said = process.communicate(timeout=60)[1].decode()
    return process.returncode, said


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def kept(out: Path) -> int:
    return journal_of(out).read_bytes().count(b"\n") - 1


def test_killed(line: Line, plain_run: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "trips.csv"
    status, _ = interrupt(command(line, plain_run, out), out, lambda process: process.kill())
    assert status == -signal.SIGKILL
    assert not out.exists()
    before = kept(out)
    assert 20 <= before < COUNT
    assert "was begun with demand_digest " in finish(line, plain_run, out, "--seed", "1", status=2)
    assert "was begun with temperature 1.0, not 2.0" in finish(line, plain_run, out, "--temperature", "2", status=2)
    assert kept(out) == before
    finish(line, plain_run, out)
    assert out.read_bytes() == whole
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["resumed_trips"] == before
    assert about["trips"] == COUNT
    assert about["throughput_traj_per_sec"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trips.csv", "trips.json"]


def test_several_processes(line: Line, plain_run: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "trips.csv"
    finish(line, plain_run, out, "--workers", "3")
    assert out.read_bytes() == whole


def test_a_worker_that_dies(line: Line, plain_run: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "trips.csv"

    def kill_one(process: subprocess.Popen[bytes]) -> None:
        os.kill(children(process)[-1], signal.SIGKILL)

    status, said = interrupt(command(line, plain_run, out, "--workers", "2"), out, kill_one)
    assert status == 1
    [text] = said.splitlines()
    assert text.startswith("trainer: error: a worker process failed: ended with status -9 (out of memory?)")
    finish(line, plain_run, out)
    assert out.read_bytes() == whole


def test_interrupted(line: Line, plain_run: Path, whole: bytes, tmp_path: Path) -> None:
    """Ctrl-C goes to all of the processes; none says a word, none stays."""
    out, found = tmp_path / "trips.csv", []

    def stop(process: subprocess.Popen[bytes]) -> None:
        found.extend(children(process))
        for pid in (*found, process.pid):
            os.kill(pid, signal.SIGINT)

    status, said = interrupt(command(line, plain_run, out, "--workers", "2"), out, stop)
    assert (status, said) == (130, "")
    assert len(found) >= 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in found):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    finish(line, plain_run, out)
    assert out.read_bytes() == whole


def test_a_full_disk(line: Line, plain_run: Path, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "trips.csv"
    for limit in (30_000, len(whole) - 100):  # while trips are found, and when the CSV is written
        done = subprocess.run(
            command(line, plain_run, out),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert done.returncode == 1, done.stderr
        [text] = done.stderr.splitlines()
        assert "cannot be written (File too large)" in text
        assert not out.exists()
    finish(line, plain_run, out)
    assert out.read_bytes() == whole
