"""`teacher bench`: load a served teacher and measure it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from teacher_server.commands.client_flags import Ca, ClientCert, ClientKey, TokenFile
from teacher_server.errors import BadSettings
from teacher_server.limits import Limits

MOST_POSITIONS = Limits().max_positions
SHAPE, LOAD = "What a request holds", "How hard, how long"


def bench(
    address: Annotated[
        str, typer.Argument(help="[grpcs://]HOST:PORT or unix:PATH; with --protocol rest http[s]://HOST:PORT.")
    ],
    protocol: Annotated[str, typer.Option(help="native, oip (gRPC) or rest (the same over HTTP).")] = "native",
    model: Annotated[str, typer.Option(help="The model's name, for oip and rest.")] = "teacher",
    callers: Annotated[
        int, typer.Option(min=1, rich_help_panel=LOAD, help="Closed loop: so many callers, one request at a time each.")
    ] = 8,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            rich_help_panel=LOAD,
            help="Open loop instead: requests a second, arriving at random (Poisson) whether or not the server keeps "
            "up; latency counts from the moment a request was due.",
        ),
    ] = None,
    duration: Annotated[float, typer.Option(min=0.1, rich_help_panel=LOAD, help="Seconds that are measured.")] = 10.0,
    warm_up: Annotated[float, typer.Option(min=0, rich_help_panel=LOAD, help="Seconds before, not counted.")] = 1.0,
    timeout: Annotated[float, typer.Option(min=0.001, rich_help_panel=LOAD, help="Seconds for one request.")] = 60.0,
    trips: Annotated[int, typer.Option(min=1, rich_help_panel=SHAPE, help="Histories of a request.")] = 32,
    steps: Annotated[int, typer.Option(min=1, rich_help_panel=SHAPE, help="Cells of a trip; each is scored.")] = 40,
    window: Annotated[
        int, typer.Option(min=0, rich_help_panel=SHAPE, help="Last tokens that a step sees; 0: the whole prefix.")
    ] = 7,
    candidates: Annotated[int, typer.Option(min=1, max=1024, rich_help_panel=SHAPE, help="Of each step.")] = 3,
    whole: Annotated[
        bool, typer.Option("--whole", rich_help_panel=SHAPE, help="Ask how probable whole trips are instead.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=SHAPE, help="Of the trips and the arrivals.")] = 0,
    ca: Ca = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    token_file: TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Load a served teacher with random walks on its grid, and measure throughput and latency.

    Ctrl-C ends it early with what was measured until then. The exit status is 1 if nothing was answered.
    """
    from rich.console import Console

    from teacher_server.channel import ClientFiles
    from teacher_server.loadgen.bench import Target, run_bench
    from teacher_server.loadgen.drive import Load
    from teacher_server.loadgen.report import report
    from teacher_server.loadgen.walks import Shape

    if trips * steps > MOST_POSITIONS:
        raise BadSettings(f"--trips x --steps is {trips * steps}: a request may hold {MOST_POSITIONS} steps at most")
    load = Load(callers, rate, duration, warm_up, timeout, seed)
    shape = Shape(trips, steps, window, candidates, whole)
    target, files = Target(address, protocol, model), ClientFiles(ca, client_cert, client_key, token_file)
    summary, interrupted = run_bench(target, files, shape, load, Console(stderr=True))
    if as_json:
        print(json.dumps(summary))
    else:
        how = f"{rate:g} requests/s arriving" if rate else f"{callers} callers"
        prefix = f"window {window}" if window else "the whole prefix"
        asked = "as wholes" if whole else f"{prefix}, {candidates} candidates"
        console = Console(highlight=False)
        console.print(
            f"{address}: {how}, {trips} trips x {steps} steps, {asked}",
            style="dim",
            soft_wrap=True,
        )
        console.print(report(summary), soft_wrap=True)
    if interrupted:
        raise typer.Exit(130)
    if not summary["requests"]:
        raise typer.Exit(1)
