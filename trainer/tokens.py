"""Token sequences for fitting a teacher, and a report of how well the grid tells roads apart.

The folder that `write_tokens` makes is what `teacher fit` and `teacher evaluate` read.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from trainer.data.city import City
from trainer.data.roadmap import RoadMap
from trainer.data.trips import Trips
from trainer.errors import BadInput
from trainer.grid import TokenMap

FORMAT = 1
TOKENS_FILE = "tokens.json"


@dataclass(frozen=True)
class MappingReport:
    """What a grid makes of a road map and its trips."""

    roads: int
    clamped_roads: int  # outside the grid, moved to its edge
    coverage: float  # share of roads inside the grid
    cells: int
    occupied_cells: int
    roads_per_occupied_cell: float
    densest_cell: int
    densest_cell_roads: int
    tied_steps: float  # share of train steps with a choice of which several candidates share a cell


def mapping_report(tokens: TokenMap, road_map: RoadMap, train: Trips) -> MappingReport:
    """Counts over all roads and all train steps."""
    occupied_cells, per_cell = np.unique(tokens.road_to_token, return_counts=True)
    occupied, roads = len(occupied_cells), road_map.roads
    return MappingReport(
        roads=roads,
        clamped_roads=tokens.clamped,
        coverage=1 - tokens.clamped / roads,
        cells=tokens.grid.cells,
        occupied_cells=occupied,
        roads_per_occupied_cell=roads / occupied,
        densest_cell=int(occupied_cells[per_cell.argmax()]),
        densest_cell_roads=int(per_cell.max()),
        tied_steps=_tied_share(tokens, road_map, train),
    )


def _tied_share(tokens: TokenMap, road_map: RoadMap, train: Trips) -> float:
    table, counts = road_map.successor_table()
    # Padding gets a cell of its own per slot, so that it is never equal to anything.
    cells = np.where(table >= 0, tokens.road_to_token[table], -1 - np.arange(table.shape[1]))
    cells.sort(axis=1)
    tied = (np.diff(cells, axis=1) == 0).any(axis=1)
    last = np.zeros(len(train.roads), dtype=bool)
    last[train.offsets[1:] - 1] = True
    at = train.roads[~last]
    choices = counts[at] > 1
    return float((tied[at] & choices).sum() / max(int(choices.sum()), 1))


def write_tokens(folder: Path, tokens: TokenMap, city: City) -> MappingReport:
    """Writes the tokens of every split, atomically. Raises BadInput when the folder holds something else."""
    folder = folder.resolve()  # `.` has no name to put a temporary folder beside it
    if folder.exists() and not (folder / TOKENS_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder}: exists and is no tokens folder; name another --out")
    report = mapping_report(tokens, city.road_map, city.trips["train"])
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, tokens, city, report)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except OSError as error:
        raise BadInput(f"{folder}: cannot write here ({error.strerror}); name another --out") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _write(folder: Path, tokens: TokenMap, city: City, report: MappingReport) -> None:
    cells = tokens.grid.cells
    for split, trips in city.trips.items():
        np.save(folder / f"{split}.tokens.npy", tokens.road_to_token[trips.roads])
        np.save(folder / f"{split}.offsets.npy", np.asarray(trips.offsets))
    np.save(folder / "road_to_token.npy", tokens.road_to_token)
    description = {
        "format": FORMAT,
        "grid": asdict(tokens.grid),
        "special_tokens": {"pad": cells, "eot": cells + 1, "sot": cells + 2},
        "vocab_size": cells + 3,
        "data_fingerprint": city.meta.fingerprint,
        "splits": {split: {"trips": len(t), "tokens": len(t.roads)} for split, t in city.trips.items()},
        "report": asdict(report),
    }
    (folder / TOKENS_FILE).write_text(json.dumps(description, indent=1) + "\n")
