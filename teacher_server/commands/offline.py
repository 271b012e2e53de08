"""The offline commands: fit, export, describe, evaluate. Flags in, one call of the module that does the work, text out.

Torch and scikit-learn take seconds to load, so each command imports what it needs.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from teacher_server.commands.client_flags import Ca, ClientCert, ClientKey, TokenFile
from teacher_server.errors import BadArtifact, BadSettings
from teacher_server.fit.settings import FitSettings

if TYPE_CHECKING:
    import torch

    from teacher_server.fit.run import FitConfig, FitRun
    from teacher_server.fit.tokens import TokenFolder
    from teacher_server.vocabulary import Grid

DEFAULTS = FitSettings()

Tokens = Annotated[Path, typer.Argument(help="Folder that `trainer tokens` wrote.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads of torch; 0: torch's own choice.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the teacher that is there.")]


def fit(
    context: typer.Context,
    tokens: Tokens,
    out: Annotated[Path, typer.Option(help="Run folder: new, or with --resume one that was stopped.")],
    layers: Annotated[int, typer.Option(help="Transformer blocks (real size: 8).")] = DEFAULTS.layers,
    heads: Annotated[int, typer.Option(help="Attention heads (real size: 12).")] = DEFAULTS.heads,
    width: Annotated[int, typer.Option(help="Embedding width (real size: 768).")] = DEFAULTS.width,
    block_size: Annotated[
        int, typer.Option(help="Longest sequence, SOT included; 0: 128, or what the longest trip needs.")
    ] = DEFAULTS.block_size,
    dropout: Annotated[float, typer.Option(help="Dropout while training.")] = DEFAULTS.dropout,
    epochs: Annotated[int, typer.Option(help="Passes over the train trips.")] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(help="Trips per optimiser step.")] = DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(help="Highest rate, after warm-up.")] = DEFAULTS.learning_rate,
    min_learning_rate: Annotated[
        float, typer.Option(help="Lowest rate, at the end of the cosine.")
    ] = DEFAULTS.min_learning_rate,
    warmup_ratio: Annotated[float, typer.Option(help="Share of steps that warm up.")] = DEFAULTS.warmup_ratio,
    weight_decay: Annotated[float, typer.Option(help="AdamW's decay, on matrices.")] = DEFAULTS.weight_decay,
    max_norm: Annotated[float, typer.Option(help="Gradients are clipped to this norm.")] = DEFAULTS.max_norm,
    checkpoint_steps: Annotated[
        int, typer.Option(help="Steps between checkpoints; every epoch ends with one, too.")
    ] = DEFAULTS.checkpoint_steps,
    seed: Annotated[int, typer.Option(help="Decides weights, batches and dropout.")] = DEFAULTS.seed,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    device: Device = "auto",
    cpu_threads: Threads = 0,
) -> None:
    """Fit an LM-TAD teacher to the train trips of a tokens folder."""
    from teacher_server.fit.loop import fit as run_fit
    from teacher_server.fit.run import FitRun
    from teacher_server.fit.tokens import open_tokens

    values = {field.name: context.params[field.name] for field in fields(FitSettings)}
    explicit = {name for name in values if context.get_parameter_source(name).name == "COMMANDLINE"}  # type: ignore[union-attr]
    chosen = _device(device, cpu_threads)
    data, run = open_tokens(tokens), FitRun(out)
    config = _fit_config(data, run, values, explicit, resume)
    try:
        summary = run_fit(data, run, config, chosen)
    except KeyboardInterrupt:
        print(f"teacher: stopped; go on with: teacher fit {tokens} --out {out} --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    cut = f", {summary['trips_cut']} trips cut to the block size" if summary["trips_cut"] else ""
    print(
        f"{out}: best epoch {summary['best_epoch']} of {summary['epochs']}, validation perplexity "
        f"{summary['val_perplexity']:.3f}, {summary['parameters']:,} parameters, {summary['seconds']:.0f} s{cut}"
    )


def export(
    source: Annotated[
        Path,
        typer.Argument(help="Run folder of `teacher fit`, a weights-only .pt file, or an LM-TAD training checkpoint."),
    ],
    out: Annotated[Path, typer.Option(help="Artifact folder to write.")],
    grid: Annotated[Path | None, typer.Option(help="JSON file with the grid, for a .pt file.")] = None,
    bounds: Annotated[
        str | None, typer.Option(help="MIN_LAT,MAX_LAT,MIN_LNG,MAX_LNG of the grid in degrees, for a .pt file.")
    ] = None,
    cell: Annotated[float | None, typer.Option(help="Cell size in degrees, with --bounds.")] = None,
    downsample: Annotated[int, typer.Option(help="Cells merged per axis, with --bounds.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Make a teacher artifact: from a fit, or from a checkpoint made elsewhere (which is never executed)."""
    from teacher_server.export import export_foreign, export_run

    if not source.exists():
        raise BadArtifact(f"{source} does not exist")
    if source.is_dir():
        if grid is not None or bounds is not None or cell is not None:
            raise BadSettings("a run of `teacher fit` knows its grid: leave out --grid, --bounds and --cell")
        description = export_run(source, out, overwrite)
    else:
        description = export_foreign(source, _grid(grid, bounds, cell, downsample), out, overwrite)
    print(f"{out}: teacher {description.digest}")


def describe(
    teacher: Annotated[
        str,
        typer.Argument(
            help="Artifact folder, or address of a served teacher (grpc[s]://HOST:PORT, HOST:PORT or unix:PATH)."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ca: Ca = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    token_file: TokenFile = None,
) -> None:
    """Say what a teacher is: digest, sizes, vocabulary, grid, provenance. A folder is verified in full."""
    if os.path.exists(teacher):
        from teacher_server.artifact import load_artifact
        from teacher_server.description import to_json

        content = to_json(load_artifact(Path(teacher)).description)
    elif ":" in teacher:
        from teacher_server.channel import ClientFiles
        from teacher_server.client import describe_address

        content = describe_address(teacher, ClientFiles(ca, client_cert, client_key, token_file))
    else:
        raise BadArtifact(f"{teacher} does not exist (an address would be grpc://HOST:PORT or unix:PATH)")
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        _print_fields(content)


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Folder of the teacher.")],
    tokens: Tokens,
    out: Annotated[Path | None, typer.Option(help="Write the result as JSON to this file, too.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides the artificial outliers.")] = 0,
    device: Device = "auto",
    cpu_threads: Threads = 0,
) -> None:
    """Perplexity on the test trips, and how well anomaly scores find artificial outliers (PR-AUC, F1)."""
    from teacher_server.artifact import load_artifact
    from teacher_server.evaluate.judge import evaluate as run_evaluate
    from teacher_server.evaluate.report import print_evaluation, write_evaluation
    from teacher_server.fit.tokens import open_tokens

    chosen = _device(device, cpu_threads)
    result = run_evaluate(load_artifact(artifact), open_tokens(tokens), seed, chosen)
    print_evaluation(result)
    if out is not None:
        write_evaluation(result, out)


def _fit_config(data: TokenFolder, run: FitRun, values: dict[str, Any], explicit: set[str], resume: bool) -> FitConfig:
    """A new run's configuration, or the stored one, which flags may repeat but not change."""
    from teacher_server.fit.loop import resume_run, start_run

    if not resume:
        try:
            settings = FitSettings(**values)
        except ValueError as error:
            raise BadSettings(str(error)) from None
        return start_run(data, run, settings)
    config = resume_run(data, run)
    for name, value in asdict(config.settings).items():
        if name in explicit and values[name] != value:
            flag = name.replace("_", "-")
            raise BadSettings(f"{run.folder} was started with --{flag} {value}; it cannot go on with {values[name]}")
    return config


def _grid(file: Path | None, bounds: str | None, cell: float | None, downsample: int) -> Grid:
    from teacher_server.foreign.grid_source import grid_from_bounds, grid_from_file

    if file is not None and bounds is None and cell is None:
        return grid_from_file(file)
    if file is None and bounds is not None and cell is not None:
        return grid_from_bounds(bounds, cell, downsample)
    raise BadSettings("a .pt file does not know its grid: give --grid FILE.json, or --bounds and --cell")


def _device(name: str, cpu_threads: int) -> torch.device:
    import torch

    from teacher_server.engine import choose_device

    try:
        chosen = choose_device(name)
    except ValueError as error:
        raise BadSettings(f"--device: {error}") from None
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    return chosen


def _print_fields(content: dict[str, Any]) -> None:
    """Nested fields as an indented list."""

    def show(fields: dict[str, Any], indent: str) -> None:
        width = max((len(name) for name, value in fields.items() if not isinstance(value, dict)), default=0)
        for name, value in fields.items():
            if isinstance(value, dict):
                print(f"{indent}{name}")
                show(value, indent + "  ")
            else:
                print(f"{indent}{name:<{width}}  {value}")

    show(content, "")
