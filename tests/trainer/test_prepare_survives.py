"""Preparing whatever happens: kills, races, full and forbidden disks. It is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.datasets import files_in, refused, set_field, small_city, trainer
from trainer.data import prepare as prepare_module
from trainer.data.city import load_city
from trainer.data.prepare import fingerprint_of, prepare


def start(data: Path, cache: Path) -> subprocess.Popen[str]:
    """`python -m trainer prepare` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "prepare", "--data", str(data), "--cache", str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return small_city(tmp_path / "city")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that a kill can meet it in every stage."""
    return small_city(tmp_path_factory.mktemp("large") / "city", roads=300, trips=8000)


def kill_when(process: subprocess.Popen[str], seen: Path) -> None:
    """SIGKILL as soon as a path is there."""
    deadline = time.monotonic() + 100
    while process.poll() is None and not seen.exists():
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    end(process)


@pytest.mark.parametrize("stage", [".lock", ".partial", ".partial/edge_index.npy"])
def test_a_killed_run_leaves_nothing_half_done(stage: str, large: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = cache / fingerprint_of(large, False)[:16]
    process = start(large, cache)
    kill_when(process, cache / f"{folder.name}{stage}")
    if folder.exists():  # the kill came too late
        assert process.returncode in (0, -signal.SIGKILL)
    else:
        assert process.returncode == -signal.SIGKILL
        assert list(cache.iterdir())  # but not too early
    whole = prepare(large, tmp_path / "undisturbed").folder
    assert prepare(large, cache).folder == folder
    expected = {name: content for name, (content, _) in files_in(whole).items()}
    assert {name: content for name, (content, _) in files_in(folder).items()} == expected
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == [folder.name]


def test_remains_of_a_killed_run_are_cleared_away(city: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / fingerprint_of(city, False)[:16]
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True)
    (partial / "train.roads.npy").write_bytes(b"half of")
    (partial / "from_an_older_version.npy").write_bytes(b"x")
    (tmp_path / "cache" / f"{folder.name}.lock").touch()
    made = prepare(city, tmp_path / "cache")
    assert made.fresh
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    assert not (folder / "from_an_older_version.npy").exists()


def test_two_processes_at_once_both_succeed(large: Path, tmp_path: Path) -> None:
    both = [start(large, tmp_path / "cache") for _ in range(2)]
    ended = [end(process) for process in both]
    assert [status for status, _, _ in ended] == [0, 0]
    assert [err for _, _, err in ended] == ["", ""]
    assert len({out.replace("already ", "") for _, out, _ in ended}) == 1
    folder = tmp_path / "cache" / fingerprint_of(large, False)[:16]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    assert len(load_city(folder).trips["train"]) == 5600


def test_only_one_builds(city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds the set made after waiting for the lock does not make it again."""
    done = prepare(city, tmp_path / "done").folder
    cache = tmp_path / "cache"

    def made_by_another(lock: Path) -> object:
        shutil.copytree(done, cache / done.name)
        return only_one(lock)

    only_one = prepare_module.only_one
    monkeypatch.setattr(prepare_module, "only_one", made_by_another)
    assert not prepare(city, cache).fresh


def test_bad_input_leaves_no_file(city: Path, tmp_path: Path) -> None:
    set_field(city / "roadmap.rel", 0, "origin_id", "-1")
    refused(trainer("prepare", "--data", city, "--cache", tmp_path / "cache"))
    assert not files_in(tmp_path / "cache")


def test_a_disk_that_does_not_cooperate(city: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", tmp_path / "file" / "cache", Path("/proc/hoser-distill")):
        refused(
            trainer("prepare", "--data", city, "--cache", cache), f"{cache}: cannot write the cache here", "--cache"
        )
    name = fingerprint_of(city, False)[:16]
    for blocked in (f"{name}.lock", name):
        cache = tmp_path / blocked
        cache.mkdir()
        if blocked.endswith(".lock"):
            (cache / blocked).mkdir()  # a folder where a file must be
        else:
            (cache / blocked).touch()  # a file where the folder must be
        refused(trainer("prepare", "--data", city, "--cache", cache), f"{cache}: cannot write the cache here")


def test_a_full_disk_leaves_nothing(city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, array: object) -> None:
        file.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    outcome = trainer("prepare", "--data", city, "--cache", tmp_path / "cache")
    refused(outcome, "cannot write the cache here (No space left on device)")
    assert not files_in(tmp_path / "cache")


def test_a_damaged_cache_says_what_to_do(city: Path, tmp_path: Path) -> None:
    folder = prepare(city, tmp_path).folder
    for name, content in (("train.times.npy", b"\x93NUMPY"), ("meta.json", b"{}"), ("edge_index.npy", None)):
        saved = (folder / name).read_bytes()
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        refused(trainer("prepare", "--data", city, "--cache", tmp_path), f"{folder}: not a prepared data set", "delete")
        (folder / name).write_bytes(saved)
    assert not prepare(city, tmp_path).fresh
