"""`trainer import` and `trainer export`: checkpoints of the original HOSER in and out."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from trainer import __version__
from trainer.assemble import restore
from trainer.commands.data import Cache, Data, SkipBad
from trainer.config import Config
from trainer.config_file import config_from, load_config
from trainer.data.city import Meta
from trainer.data.prepare import prepare
from trainer.errors import BadInput, CannotWrite
from trainer.files import check_target, digest_of, write_json
from trainer.provenance import program
from trainer.run_folder import IMPORTED, Origin, RunFolder
from trainer.student.card import StudentCard
from trainer.student.checkpoint import load_student, save_student
from trainer.student.hoser import HOSER
from trainer.student.original import ZONES, original_state, read_original, sizes_of, write_original


def import_command(
    checkpoint: Annotated[Path, typer.Argument(help="State dict of the original HOSER: torch.save, or .safetensors.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    config: Annotated[
        Path | None,
        typer.Option(help="YAML settings beyond the sizes, which the weights tell (for example data.angle)."),
    ] = None,
    cache: Cache = None,
    skip_bad: SkipBad = False,
) -> None:
    """Make a run of an original checkpoint, for `trainer generate` and `trainer evaluate`."""
    folder = RunFolder(out)
    folder.check_new()
    state = read_original(checkpoint)
    settings = _settled(load_config(config), config, sizes_of(state, str(checkpoint)))
    city = prepare(data, cache, skip_bad).city
    student = restore(state, settings, city, str(checkpoint))
    about = {
        "data": str(data.resolve()),
        "skip_bad": skip_bad,
        "imported_from": {"file": checkpoint.name, "sha256": digest_of(checkpoint)},
        "torch": torch.__version__,
    } | program()
    _write_run(folder, student, settings, city.meta, about)
    encoder = "time_emb (older)" if student.config.older_time else "freqs"
    weights = sum(parameter.numel() for parameter in student.parameters())
    print(f"{out}: {weights} weights, temporal encoder {encoder}; its features are those of {data}")


def _write_run(folder: RunFolder, student: HOSER, settings: Config, meta: Meta, about: dict[str, Any]) -> None:
    """The whole folder or nothing. Raises CannotWrite."""
    card = StudentCard(settings.plain(), meta.fingerprint, None, meta.log1p_mean, meta.log1p_std, step=0)
    root = folder.root.resolve()
    draft = RunFolder(root.with_name(f".{root.name}.partial"))
    shutil.rmtree(draft.root, ignore_errors=True)  # what a killed import left
    try:
        draft.create(Origin(settings.plain(), meta.fingerprint, IMPORTED), settings.plain(), about)
        save_student(draft.best, student.state_dict(), card)
        os.replace(draft.root, root)
    except OSError as error:
        raise CannotWrite(f"{folder.root}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(draft.root, ignore_errors=True)


def _settled(given: Config, file: Path | None, sizes: dict[str, dict[str, int]]) -> Config:
    """The settings with the sizes that the weights have. Raises BadInput where a file says otherwise."""
    plain = given.plain()
    for name, found in sizes.items():
        section = getattr(given, name)
        for key, value in found.items():
            said = getattr(section, key)
            if key in section.model_fields_set and said not in (None, value):
                raise BadInput(f"{file}: {name}.{key} is {said}, the checkpoint's weights have {value}")
        plain[name] |= found
    return config_from(plain)


def export_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option(help="File to write, for the original's torch.load and load_state_dict.")],
    zones: Annotated[
        int | None, typer.Option(min=1, help="Rows of the zone table, where the original's config asks for more.")
    ] = None,
) -> None:
    """Write a run's best student as a state dict of the original HOSER, and beside it (FILE.json) what made it."""
    check_target(out)
    folder = RunFolder(run)
    folder.origin()
    state, card = load_student(folder.best)
    settings = config_from(card.config)
    if settings.data.angle != "original":
        raise BadInput(f"{run}: was trained with data.angle {settings.data.angle}, which the original cannot compute")
    table, max_len = state[ZONES], settings.trajectory_encoder_config.max_len
    if zones is not None and zones < len(table):
        raise BadInput(f"--zones {zones}: the student has {len(table)} zones")
    write_original(out, original_state(state, max_len, zones or len(table)))
    about = _about(folder, card, settings, zones or len(table)) | {"sha256": digest_of(out)}
    write_json(out.with_name(f"{out.name}.json"), about)
    print(f"{out}: for the original with zone_id_num_embeddings {zones or len(table)} and max_len {max_len}")


def _about(folder: RunFolder, card: StudentCard, settings: Config, zones: int) -> dict[str, Any]:
    sections = ("road_network_encoder_config", "trajectory_encoder_config", "navigator_config")
    shape = {name: settings.plain()[name] for name in sections}
    shape["road_network_encoder_config"]["zone_id_num_embeddings"] = zones
    made = {name: value for name, value in asdict(card).items() if name != "config"}
    return {"model_digest": digest_of(folder.best), **made, "config": shape, "version": __version__}
