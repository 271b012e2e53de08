"""Trips as grid tokens: reads the folder that `trainer tokens` writes, checking everything once.

tokens.json holds the grid, the special tokens and a fingerprint of the data; `{split}.tokens.npy` (int32) holds the
cells of all trips of a split, one per road, and `{split}.offsets.npy` (int64) where each trip starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_server.description import check_vocabulary, read_fields
from teacher_server.errors import BadSettings
from teacher_server.vocabulary import Grid, SpecialTokens

FORMAT = 1
SPLITS = ("train", "val", "test")
Cells = NDArray[np.int32]


@dataclass(frozen=True)
class Trips:
    """n trips; trip i is tokens[offsets[i]:offsets[i + 1]], cells only, at least one."""

    tokens: Cells  # [sum of lengths]
    offsets: NDArray[np.int64]  # [n + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, trip: int) -> Cells:
        return self.tokens[self.offsets[trip] : self.offsets[trip + 1]]

    def __iter__(self) -> Iterator[Cells]:
        return (self[trip] for trip in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each trip, [n]."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, trips: list[Cells]) -> Trips:
        lengths = [len(trip) for trip in trips]
        tokens = np.concatenate(trips) if trips else np.zeros(0, np.int32)
        return cls(tokens.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@dataclass(frozen=True)
class TokenFolder:
    """What all splits of a tokens folder share."""

    folder: Path
    grid: Grid
    special: SpecialTokens
    vocab_size: int
    data_fingerprint: str

    def trips(self, split: str) -> Trips:
        """One split, memory-mapped. Raises BadSettings naming the file and the first wrong value."""
        tokens = _array(self.folder / f"{split}.tokens.npy", np.int32)
        offsets = _array(self.folder / f"{split}.offsets.npy", np.int64)
        name = self.folder / f"{split}.offsets.npy"
        if len(offsets) < 2:
            raise BadSettings(f"{name}: the split has no trips")
        if offsets[0] != 0 or offsets[-1] != len(tokens):
            raise BadSettings(
                f"{name}: runs from {offsets[0]} to {offsets[-1]}, but {split}.tokens.npy holds {len(tokens)} tokens"
            )
        short = np.flatnonzero(np.diff(offsets) < 1)
        if len(short):
            raise BadSettings(f"{name}: trip {short[0]} has no tokens")
        wrong = np.flatnonzero((tokens < 0) | (tokens >= self.grid.cells))
        if len(wrong):
            raise BadSettings(
                f"{self.folder / f'{split}.tokens.npy'}: token {tokens[wrong[0]]} at {wrong[0]} is no cell of the "
                f"grid (0..{self.grid.cells - 1})"
            )
        return Trips(tokens, offsets)


def open_tokens(folder: Path) -> TokenFolder:
    """Read and check tokens.json. Raises BadSettings naming the file and the field."""
    path = folder / "tokens.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return _described(folder, raw)
    except FileNotFoundError:
        raise BadSettings(f"{path} does not exist: make the folder with `trainer tokens`") from None
    except json.JSONDecodeError as error:
        raise BadSettings(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except OSError as error:
        raise BadSettings(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise BadSettings(f"{path}: {error}") from None


def _described(folder: Path, raw: object) -> TokenFolder:
    if not isinstance(raw, dict):
        raise ValueError("must hold a JSON object")
    for name in ("format", "grid", "special_tokens", "vocab_size", "data_fingerprint"):
        if name not in raw:
            raise ValueError(f"field {name} is missing")
    if raw["format"] != FORMAT:
        raise ValueError(f"format is {raw['format']!r}, but this version reads only format {FORMAT}")
    grid = read_fields(Grid, raw["grid"], "grid")
    special = read_fields(SpecialTokens, raw["special_tokens"], "special_tokens")
    if type(raw["vocab_size"]) is not int:
        raise ValueError(f"vocab_size must be of type int, got {raw['vocab_size']!r}")
    check_vocabulary(raw["vocab_size"], special, grid)
    return TokenFolder(folder, grid, special, raw["vocab_size"], str(raw["data_fingerprint"]))


def _array(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadSettings(f"{path} does not exist: make the folder with `trainer tokens`") from None
    except (OSError, ValueError, EOFError) as error:
        raise BadSettings(f"{path}: no readable .npy file: {error}") from None
    if array.ndim != 1 or array.dtype != np.dtype(dtype):
        raise BadSettings(f"{path}: must be a vector of {np.dtype(dtype)}, got {array.dtype} {list(array.shape)}")
    return array
