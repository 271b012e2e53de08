"""`trainer bundle`: a run as one archive, and the check of one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer.bundle.archive import Manifest
from trainer.bundle.pack import write_bundle
from trainer.bundle.parts import OPTIONAL, Parts, gather
from trainer.bundle.verify import verify
from trainer.commands.data import Cache
from trainer.commands.load import run_data
from trainer.data.roadmap import RoadMap
from trainer.errors import BadInput
from trainer.files import check_target, digest_of
from trainer.run_folder import RunFolder


def bundle_command(
    run: Annotated[Path | None, typer.Argument(help="Folder of a training run.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Archive to write, a .zip.")] = None,
    check: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="Check this archive instead, byte for byte.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder, for the lines of the trips (default: the run's).")
    ] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Bundle a run that has not ended.")] = False,
    cache: Cache = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Drop bad trips of --data; the run's generated trips must all be good.")
    ] = False,
) -> None:
    """Pack a run's student, settings, figures, report and trips into one archive, or check one."""
    if check is not None:
        if run is not None or out is not None:
            raise BadInput("--verify FILE stands alone; it takes neither a run nor --out")
        _say(check, verify(check), "is whole")
        return
    if run is None or out is None:
        raise BadInput("give RUN and --out FILE.zip, or --verify FILE")
    check_target(out)
    if out.suffix != ".zip":
        raise BadInput(f"{out}: the archive's name must end in .zip; name another --out")
    parts = gather(run, unfinished)
    road_map = _road_map(parts, data, cache, skip_bad) if "generated.csv" in parts.digests else None
    manifest = write_bundle(out, parts, road_map)
    for name in parts.missing:
        print(f"trainer: note: no {name} in it ({OPTIONAL[name]} writes it)", file=sys.stderr)
    _say(out, manifest, "is written")


def _road_map(parts: Parts, data: Path | None, cache: Path | None, skip_bad: bool) -> RoadMap:
    """The roads that the trips were generated on. Raises BadInput for those of other data."""
    # The run's own data is read as it was trained on; other data may need the flag.
    drops = skip_bad and data is not None
    city = run_data(RunFolder(parts.root), data, cache, drops).city
    made_on = parts.found["generated.json"].get("data_fingerprint")
    if made_on != city.meta.fingerprint:
        without = ", or leave --skip-bad away" if drops else ""
        raise BadInput(
            f"{parts.root / 'generated.csv'}: was generated on data {str(made_on)[:16]}, "
            f"this is {city.meta.fingerprint[:16]}; give its folder with --data{without}"
        )
    return city.road_map


def _say(file: Path, manifest: Manifest, what: str) -> None:
    unpacked = sum(part.bytes for part in manifest.files.values())
    made_of = f"student {manifest.model_digest[:16]}, data {manifest.data_fingerprint[:16]}"
    print(
        f"{file}: {what}: {len(manifest.files)} files, {unpacked} bytes unpacked, {made_of}, "
        f"teacher {manifest.teacher[:16]}; SHA-256 {digest_of(file)}"
    )
