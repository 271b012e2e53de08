"""The grid of a teacher that was made elsewhere: from a JSON file or from bounds and a cell size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from teacher_server.description import read_fields
from teacher_server.errors import BadSettings
from teacher_server.vocabulary import Grid


def grid_from_file(path: Path) -> Grid:
    """A JSON object with the fields of `Grid`.

    Instead of cell_lat and cell_lng it may have one cell_deg, `cols` for columns, and it may leave out downsample (1)
    and centroid_rule, of which there is one. Raises BadSettings naming the file and the field.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ValueError("must hold a JSON object")
        return read_fields(Grid, _grid_fields(raw), "grid")
    except FileNotFoundError:
        raise BadSettings(f"{path} does not exist") from None
    except json.JSONDecodeError as error:
        raise BadSettings(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except OSError as error:
        raise BadSettings(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise BadSettings(f"{path}: {error}") from None


def grid_from_bounds(bounds: str, cell: float, downsample: int) -> Grid:
    """A grid over "MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG" (degrees) with square cells. Raises BadSettings."""
    try:
        min_lat, max_lat, min_lng, max_lng = (float(part) for part in bounds.split(","))
    except ValueError:
        raise BadSettings(f"--bounds must be MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG in degrees, got {bounds!r}") from None
    if not cell > 0 or downsample < 1:
        raise BadSettings(f"--cell must be positive and --downsample at least 1, got {cell} and {downsample}")
    try:
        rows, columns = Grid.shape_of(max_lat - min_lat, max_lng - min_lng, cell, cell, downsample)
        return Grid(min_lat, max_lat, min_lng, max_lng, cell, cell, rows, columns, downsample)
    except (ValueError, OverflowError) as error:
        raise BadSettings(f"--bounds {bounds} --cell {cell}: {error}") from None


def _grid_fields(raw: dict[str, Any]) -> dict[str, Any]:
    """Only the grid's own fields under their own names; such files often hold more (a road map, token ids)."""
    fields = {"downsample": 1, "centroid_rule": "length-weighted", **raw}
    if "cell_deg" in raw:
        fields.update(cell_lat=raw["cell_deg"], cell_lng=raw["cell_deg"])
    if "cols" in raw:
        fields["columns"] = raw["cols"]
    return {name: fields[name] for name in Grid.__dataclass_fields__ if name in fields}
