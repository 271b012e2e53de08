"""Tokens folders: read as written, and refused with the file and the value that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teacher_server.errors import BadSettings
from teacher_server.fit.tokens import SPLITS, open_tokens
from teacher_server.vocabulary import SpecialTokens
from tests.teacher_server.token_folders import COUNTS, GRID, token_folder, walks


def test_what_was_written_is_read(tmp_path: Path) -> None:
    data = token_folder(tmp_path)
    assert (data.grid, data.special, data.vocab_size) == (GRID, SpecialTokens.after(132), 135)
    for seed, split in enumerate(SPLITS):
        trips = data.trips(split)
        assert [trip.tolist() for trip in trips] == walks(COUNTS[split], seed)
        assert trips.lengths.tolist() == [len(trip) for trip in trips]


DESCRIPTIONS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.pop("grid"), "field grid is missing"),
    (lambda c: c.update(format=3), "format is 3"),
    (lambda c: c.update(vocab_size=134), "a vocabulary of 134 tokens does not fit a grid of 11 x 12"),
    (lambda c: c.update(vocab_size="135"), "vocab_size must be of type int, got '135'"),
    (lambda c: c["special_tokens"].update(pad=0), "special_tokens.pad is 0"),
    (lambda c: c["grid"].pop("cell_lat"), "field grid.cell_lat is missing"),
]


@pytest.mark.parametrize(("edit", "expected"), DESCRIPTIONS, ids=[expected for _, expected in DESCRIPTIONS])
def test_a_wrong_description(tmp_path: Path, edit: Callable[[dict[str, Any]], None], expected: str) -> None:
    token_folder(tmp_path)
    path = tmp_path / "tokens.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BadSettings, match=f"{re.escape(str(path))}: {re.escape(expected)}"):
        open_tokens(tmp_path)


def test_no_description_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"tokens\.json does not exist"):
        open_tokens(tmp_path)
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(BadSettings, match=r"tokens\.json:1: not valid JSON"):
        open_tokens(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "offsets", "expected"),
    [
        (np.array([1, 132], np.int32), np.array([0, 2]), "token 132 at 1 is no cell of the grid"),
        (np.array([-1, 5], np.int32), np.array([0, 2]), "token -1 at 0 is no cell"),
        (np.array([1, 2]), np.array([0, 2]), "must be a vector of int32, got int64"),
        (np.array([[1, 2]], np.int32), np.array([0, 2]), r"got int32 \[1, 2\]"),
        (np.array([1, 2], np.int32), np.array([0, 3]), "runs from 0 to 3, but"),
        (np.array([1, 2], np.int32), np.array([0, 2, 1, 2]), "trip 1 has no tokens"),
        (np.array([1, 2], np.int32), np.array([0, 0, 2]), "trip 0 has no tokens"),
        (np.array([1, 2], np.int32), np.array([0]), "the split has no trips"),
    ],
)
def test_wrong_arrays(tmp_path: Path, tokens: Any, offsets: Any, expected: str) -> None:
    data = token_folder(tmp_path)
    np.save(tmp_path / "val.tokens.npy", tokens)
    np.save(tmp_path / "val.offsets.npy", offsets)
    with pytest.raises(BadSettings, match=expected):
        data.trips("val")


def test_a_truncated_and_a_missing_array(tmp_path: Path) -> None:
    data = token_folder(tmp_path)
    path = tmp_path / "test.tokens.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BadSettings, match=r"test\.tokens\.npy: no readable \.npy file"):
        data.trips("test")
    path.unlink()
    with pytest.raises(BadSettings, match=r"test\.tokens\.npy does not exist"):
        data.trips("test")
