"""`trainer prepare` and `trainer tokens`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from trainer.commands.engine import Engine, EngineOption, cluster_of
from trainer.data.prepare import Prepared, prepare
from trainer.errors import BadInput
from trainer.grid import Bounds, Grid, TokenMap, map_roads
from trainer.tokens import MappingReport, write_tokens

Data = Annotated[Path, typer.Option(help="Folder in HOSER format; only read.")]
Cache = Annotated[Path | None, typer.Option(help="Where prepared data is kept (default: the user's cache folder).")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Drop and count bad trips instead of stopping.")]

DEFAULT_CELL = 0.0005


def prepare_command(
    data: Data, cache: Cache = None, skip_bad: SkipBad = False, engine: EngineOption = Engine.PLAIN
) -> None:
    """Check a data folder, derive what it lacks, and cache it; a second run does nothing."""
    with cluster_of(engine) as cluster:
        print(describe(data, prepare(data, cache, skip_bad, cluster.map if cluster else map)))


def describe(data: Path, prepared: Prepared) -> str:
    """One line of what was found, and one for what was dropped."""
    city, meta = prepared.city, prepared.city.meta
    counts = ", ".join(f"{len(trips)} {split}" for split, trips in city.trips.items())
    state = "prepared" if prepared.fresh else "already prepared"
    line = (
        f"{data}: {state}: {city.road_map.roads} roads, {len(city.road_map.successors)} relations, "
        f"{city.zones} zones (partition {meta.partition}, matrix {meta.transitions}), trips: {counts}; "
        f"fingerprint {meta.fingerprint[:16]} in {prepared.folder}"
    )
    dropped: Counter[str] = Counter()
    for kinds in meta.dropped.values():
        dropped.update(kinds)
    if dropped:
        line += "\ndropped trips: " + ", ".join(f"{count} x {kind}" for kind, count in dropped.items())
    return line


def tokens_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder to write the tokens into.")],
    cell: Annotated[float | None, typer.Option(help=f"Cell size of a new grid, degrees ({DEFAULT_CELL}).")] = None,
    downsample: Annotated[int, typer.Option(help="Merge this many cells per axis into one.")] = 1,
    bounds: Annotated[
        str | None, typer.Option(help="MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG of a new grid (default: all road points).")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Take the grid of this teacher: local:FOLDER, grpc://... or triton://...")
    ] = None,
    cache: Cache = None,
    skip_bad: SkipBad = False,
) -> None:
    """Map roads to grid cells and write the trips as token sequences for `teacher fit`."""
    prepared = prepare(data, cache, skip_bad)
    road_map = prepared.city.road_map
    if teacher:
        if cell is not None or bounds is not None or downsample != 1:
            raise BadInput("--teacher brings its own grid: leave --cell, --bounds and --downsample away")
        tokens = map_roads(_grid_of(teacher), road_map.centres)
    else:
        grid = Grid.over(road_map.points, DEFAULT_CELL if cell is None else cell, downsample, _bounds(bounds))
        tokens = map_roads(grid, road_map.centres)
    print(_sentence(out, tokens, write_tokens(out, tokens, prepared.city)))


def _grid_of(address: str) -> Grid:
    from trainer.teacher.address import connect  # gRPC, which nothing else here needs

    found = connect(address)
    if found is None:
        raise BadInput(
            f"--teacher {address}: has no grid; give local:FOLDER, grpc://HOST:PORT or triton://HOST:PORT/MODEL"
        )
    try:
        return found.description.grid
    finally:
        found.close()


def _bounds(text: str | None) -> Bounds | None:
    if text is None:
        return None
    try:
        min_lat, max_lat, min_lng, max_lng = (float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"--bounds {text!r}: must be MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG") from None
    return Bounds(min_lat, max_lat, min_lng, max_lng)


def _sentence(out: Path, tokens: TokenMap, report: MappingReport) -> str:
    return (
        f"{out}: {tokens.grid}; {report.occupied_cells} of {report.cells} cells hold {report.roads} roads "
        f"({report.roads_per_occupied_cell:.2f} a cell, at most {report.densest_cell_roads} in cell "
        f"{report.densest_cell}), coverage {report.coverage:.2%} ({report.clamped_roads} clamped), "
        f"{report.tied_steps:.1%} of the steps with a choice have candidates that share a cell"
    )
