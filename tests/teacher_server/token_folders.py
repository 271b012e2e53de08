"""Makes small tokens folders, in the format that `trainer tokens` writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from teacher_server.fit.tokens import TokenFolder, open_tokens
from teacher_server.vocabulary import Grid, SpecialTokens

GRID = Grid(37.0, 37.0105, -122.0, -121.9885, 0.001, 0.001, 11, 12)
COUNTS = {"train": 60, "val": 20, "test": 40}


def walks(count: int, seed: int, grid: Grid = GRID, shortest: int = 1, longest: int = 20) -> list[list[int]]:
    """Trips that go east in their row and turn back at the edge: easy to learn, of lengths shortest..longest."""
    generator = np.random.default_rng(seed)
    trips = []
    for _ in range(count):
        row, column = int(generator.integers(grid.rows)), int(generator.integers(grid.columns))
        length = int(generator.integers(shortest, longest + 1))
        trips.append([row * grid.columns + (column + i) % grid.columns for i in range(length)])
    return trips


def write_tokens(folder: Path, splits: dict[str, list[list[int]]], grid: Grid = GRID) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, trips in splits.items():
        offsets = np.cumsum([0] + [len(trip) for trip in trips]).astype(np.int64)
        np.save(folder / f"{split}.tokens.npy", np.array([t for trip in trips for t in trip], np.int32))
        np.save(folder / f"{split}.offsets.npy", offsets)
    content = {
        "format": 1,
        "grid": asdict(grid),
        "special_tokens": asdict(SpecialTokens.after(grid.cells)),
        "vocab_size": grid.cells + 3,
        "data_fingerprint": "made for a test",
        "splits": {s: {"trips": len(t), "tokens": sum(map(len, t))} for s, t in splits.items()},
    }
    (folder / "tokens.json").write_text(json.dumps(content))


def token_folder(folder: Path) -> TokenFolder:
    write_tokens(folder, {split: walks(n, seed) for seed, (split, n) in enumerate(COUNTS.items())})
    return open_tokens(folder)
