"""The label store against a dictionary, and whatever may happen to its files."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.teacher_server.full_disk import files_end_at
from trainer.errors import BadInput, CannotWrite
from trainer.teacher.layout import offsets_of
from trainer.teacher.store import KEY, MARKS, VALUES, LabelKey, LabelStore

LABELS = LabelKey("f" * 64, "train", 1024, "d" * 64, {"rows": 3, "cell_lat": 0.0005}, 48, 4, "float32")
counts_lists = st.lists(st.integers(0, 9), min_size=1, max_size=30)
anything = st.floats(-7e4, 0, width=32) | st.just(-np.inf) | st.just(np.nan)


@contextmanager
def temporary(counts: list[int]) -> Iterator[tuple[Path, np.ndarray]]:
    with TemporaryDirectory() as root:
        yield Path(root), offsets_of(np.array(counts))


def random_values(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-20, 0, size).astype(np.float32)


def filled(root: Path, offsets: np.ndarray) -> tuple[Path, np.ndarray]:
    """A complete, closed store: its folder and its values."""
    values = random_values(0, int(offsets[-1]))
    store = LabelStore.open_or_create(root, LABELS, offsets)
    store.write(np.arange(len(offsets) - 1), values)
    store.sync()
    return store.folder, values.astype(np.float16)


@settings(deadline=None, max_examples=60, database=None)
@given(counts_lists, st.data())
def test_a_store_is_a_dictionary_that_survives(counts: list[int], data: st.DataObject) -> None:
    """Any writes in any order, with reopening between; the first to write an item wins."""
    oracle: dict[int, list[float]] = {}
    with temporary(counts) as (root, offsets):
        store = LabelStore.open_or_create(root, LABELS, offsets)
        for _ in range(data.draw(st.integers(1, 5))):
            items = data.draw(st.lists(st.integers(0, len(counts) - 1), unique=True))
            size = sum(counts[item] for item in items)
            values = np.array(data.draw(st.lists(anything, min_size=size, max_size=size)), np.float32)
            store.write(np.array(items, np.int64), values)
            parts = iter(values.tolist())
            for item in items:
                oracle.setdefault(item, mine := [next(parts) for _ in range(counts[item])])
                assert len(mine) == counts[item]
            if data.draw(st.booleans()):
                store = LabelStore.open_or_create(root, LABELS, offsets)
            assert store.has(np.arange(len(counts))).tolist() == [item in oracle for item in range(len(counts))]
            order = data.draw(st.permutations(sorted(oracle)))
            with np.errstate(over="ignore"):
                expected = np.array([x for item in order for x in oracle[item]], np.float32).astype(np.float16)
            np.testing.assert_array_equal(store.read(np.array(order, np.int64)), expected)
            assert store.share == len(oracle) / len(counts)
            assert store.complete == (len(oracle) == len(counts))


@settings(deadline=None, max_examples=150, database=None)
@given(counts_lists, st.data())
def test_what_was_cut_or_rotted_is_not_there(counts: list[int], data: st.DataObject) -> None:
    """A power failure may keep any pages of either file and lose others; a disk may rot."""
    with temporary(counts) as (root, offsets):
        folder, values = filled(root, offsets)
        whole = values.tobytes()
        found = bytearray(whole)
        for _ in range(data.draw(st.integers(0, 3))):
            if found:
                found[data.draw(st.integers(0, len(found) - 1))] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.integers(0, len(found)))
        (folder / VALUES).write_bytes(found[:cut])
        known = data.draw(st.integers(0, 4 * len(counts)))
        marks = (folder / MARKS).read_bytes()
        (folder / MARKS).write_bytes(marks[:known])
        found[cut:] = bytes(len(found) - cut)
        store = LabelStore.open_or_create(root, LABELS, offsets)
        for item in range(len(counts)):
            here = slice(2 * offsets[item], 2 * offsets[item + 1])
            expected = found[here] == whole[here] and not any(marks[max(known, 4 * item) : 4 * (item + 1)])
            assert bool(store.has(np.array([item]))[0]) == expected, item
        store.write(np.arange(len(counts)), values)
        assert (folder / VALUES).read_bytes()[: len(whole)] == whole
        assert LabelStore.open_or_create(root, LABELS, offsets).complete


def test_what_is_lost_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, values = filled(tmp_path, np.arange(0, 101, 10))
    assert capsys.readouterr().err == ""
    (folder / VALUES).write_bytes(values[:55].tobytes())
    LabelStore.open_or_create(tmp_path, LABELS, np.arange(0, 101, 10))
    said = f"trainer: note: {folder}: was damaged; of 10 trips 5 are left, the others are asked again\n"
    assert capsys.readouterr().err == said
    LabelStore.open_or_create(tmp_path, LABELS, np.arange(0, 101, 10))
    assert capsys.readouterr().err == ""


def test_files_of_something_else_are_refused_and_left_alone(tmp_path: Path) -> None:
    offsets = np.arange(0, 101, 10)
    folder, _ = filled(tmp_path, offsets)
    untouched = {file: file.read_bytes() for file in folder.iterdir()}
    for name in (VALUES, MARKS):
        content = untouched[folder / name]
        (folder / name).write_bytes(content + b"more")
        with pytest.raises(BadInput, match=f"{name}: has {len(content) + 4} bytes instead of {len(content)}; delete"):
            LabelStore.open_or_create(tmp_path, LABELS, offsets)
        (folder / name).unlink()
        with pytest.raises(BadInput, match=f"{name}: cannot be read .No such file.*; delete the folder"):
            LabelStore.open_or_create(tmp_path, LABELS, offsets)
        (folder / name).write_bytes(content)
    assert {file: file.read_bytes() for file in folder.iterdir()} == untouched


OTHERS = {
    "data": "0" * 64,
    "split": "val",
    "max_len": 9,
    "teacher": "e" * 64,
    "grid": {"rows": 3, "cell_lat": 0.001},
    "block_size": 9,
    "window": 0,
    "compute_type": "float16",
    "content": "requests",
    "format": 2,
}


@pytest.mark.parametrize("name", LabelKey.__dataclass_fields__)
def test_every_part_of_the_key_counts(name: str, tmp_path: Path) -> None:
    """Another key is another folder; and a folder with another key inside is refused, naming the difference."""
    offsets = np.arange(0, 101, 10)
    folder, _ = filled(tmp_path, offsets)
    other = replace(LABELS, **{name: OTHERS[name]})
    assert not LabelStore.open_or_create(tmp_path, other, offsets).has(np.arange(10)).any()
    shutil.rmtree(tmp_path / other.name)
    shutil.copytree(folder, tmp_path / other.name)
    with pytest.raises(BadInput) as raised:
        LabelStore.open_or_create(tmp_path, other, offsets)
    wanted, found = getattr(other, name), getattr(LABELS, name)
    assert f"holds other labels: {name} is {found!r} and must be {wanted!r}" in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", '{"data": ', "\xff"])
def test_a_broken_key_is_refused(content: str, tmp_path: Path) -> None:
    folder, _ = filled(tmp_path, np.arange(4))
    (folder / KEY).write_text(content, "latin-1")
    with pytest.raises(BadInput, match="delete the folder"):
        LabelStore.open_or_create(tmp_path, LABELS, np.arange(4))


def test_the_key_can_be_read_by_people(tmp_path: Path) -> None:
    folder, _ = filled(tmp_path, np.arange(4))
    key = json.loads((folder / KEY).read_text())
    assert key["split"] == "train"
    assert key["window"] == 4
    assert key["grid"]["cell_lat"] == 0.0005


def test_a_full_disk_is_met_before_any_work_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "labels"
    with files_end_at(100_000), pytest.raises(CannotWrite) as raised:
        LabelStore.open_or_create(root, LABELS, np.arange(0, 100_001, 10))
    free = shutil.disk_usage(root).free
    assert f"{root}: labels need 200,000 bytes, " in str(raised.value)
    assert f"{free:,}"[:3] in str(raised.value)
    assert "make room or name another folder with --labels" in str(raised.value)
    assert not list(root.iterdir())


def test_a_disk_that_is_full_when_a_cut_file_is_mended(tmp_path: Path) -> None:
    offsets = np.arange(0, 100_001, 10)
    folder, values = filled(tmp_path, offsets)
    (folder / VALUES).write_bytes(values[:1000].tobytes())
    with files_end_at(100_000), pytest.raises(CannotWrite, match="labels need 200,000 bytes"):
        LabelStore.open_or_create(tmp_path, LABELS, offsets)
    assert LabelStore.open_or_create(tmp_path, LABELS, offsets).share == 0.01


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file" / "labels", Path("/proc/labels")):
        with pytest.raises(CannotWrite, match=r"cannot keep labels here .*; name another folder with --labels"):
            LabelStore.open_or_create(root, LABELS, np.arange(4))


COUNTS = np.random.default_rng(1).integers(0, 60, 3000)


def write_for_ever(root: Path, seed: int, begun: multiprocessing.synchronize.Event) -> None:
    """Fills a store in some order with values of its own, a few items at a time."""
    offsets = offsets_of(COUNTS)
    store = LabelStore.open_or_create(root, LABELS, offsets)
    rng = np.random.default_rng(seed)
    for items in np.split(rng.permutation(len(COUNTS)), 300):
        store.write(items, np.full(COUNTS[items].sum(), -float(seed), np.float32))
        begun.set()


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02])
def test_processes_that_are_killed_while_they_write(delay: float, tmp_path: Path) -> None:
    """Two write at once and are killed; every item that is there is one's or the other's, whole."""
    context = multiprocessing.get_context("forkserver")
    begun = [context.Event(), context.Event()]
    writers = [context.Process(target=write_for_ever, args=(tmp_path, n + 1, begun[n])) for n in range(2)]
    for writer in writers:
        writer.start()
    assert all(event.wait(60) for event in begun)
    time.sleep(delay)
    for writer in writers:
        writer.kill()
        writer.join()
    offsets = offsets_of(COUNTS)
    store = LabelStore.open_or_create(tmp_path, LABELS, offsets)
    there = np.flatnonzero(store.has(np.arange(len(COUNTS))))
    assert len(there)
    for item in there:
        assert len(set(store.read(np.array([item])).tolist()) - {-1.0}) in (0, 1)
        assert set(store.read(np.array([item])).tolist()) in ({-1.0}, {-2.0}, set())
    before = store.read(there)
    store.write(np.arange(len(COUNTS)), np.full(COUNTS.sum(), -3.0))
    np.testing.assert_array_equal(store.read(there), before)
    assert store.complete
    assert not list(tmp_path.glob("*.lock"))
    assert {writer.exitcode for writer in writers} <= {0, -signal.SIGKILL}
