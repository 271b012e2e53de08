"""`trainer generate`: routes from a trained student."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from trainer import __version__
from trainer.assemble import load_trained, pick_device
from trainer.commands.data import Cache, SkipBad
from trainer.commands.load import run_data
from trainer.data.features import Network
from trainer.errors import BadInput
from trainer.files import digest_of
from trainer.generate.demand import draw_demand, read_demand
from trainer.generate.expander import Expander, StepTimes
from trainer.generate.lock_step import LockStep, Trip
from trainer.generate.output import check_target, write_generated
from trainer.generate.route import Route
from trainer.generate.search import KINDS, SearchSettings
from trainer.run_folder import RunFolder


def generate_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    data: Annotated[Path | None, typer.Option(help="Data folder (default: the one the run was trained on).")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV to write (default: generated.csv in the run).")] = None,
    count: Annotated[int, typer.Option(min=1, help="Trips to generate.")] = 500,
    od: Annotated[str, typer.Option(help="Draw origins and destinations from this split: train or test.")] = "test",
    od_file: Annotated[
        Path | None,
        typer.Option(help="CSV with origin_road_id, destination_road_id, source_origin_time, instead of --od."),
    ] = None,
    kind: Annotated[str, typer.Option("--search", help=f"One of {', '.join(KINDS)}.")] = "best-first",
    beam_width: Annotated[int, typer.Option(min=1, help="Paths kept by the beam.")] = 4,
    max_expansions: Annotated[int, typer.Option(min=1, help="Roads expanded before a search gives up.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of trips and of `sample`.")] = 0,
    cache: Cache = None,
    skip_bad: SkipBad = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpu_threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; one path at a time gains nothing from more.")
    ] = 1,
) -> None:
    """Generate routes between origins and destinations with a trained student."""
    settings = SearchSettings(kind, max_expansions, beam_width, seed)
    if kind not in KINDS or od not in ("train", "test"):
        raise BadInput(f"--search must be one of {', '.join(KINDS)} (not {kind!r}), --od train or test (not {od!r})")
    torch.set_num_threads(cpu_threads)
    folder = RunFolder(run)
    target = out or folder.generated
    if out:
        check_target(out)
    city = run_data(folder, data, cache, skip_bad).city
    student, config, card = load_trained(folder.best, city)
    demand = read_demand(od_file, city.road_map.roads) if od_file else draw_demand(city.trips[od], count, seed)
    where = pick_device(device)
    expander = Expander(
        student.to(where),
        Network.of(city.road_map).to(where),
        StepTimes(card.log1p_mean, card.log1p_std),
        max_steps=config.trajectory_encoder_config.max_len,
        angle=config.data.angle,
    )
    begun = perf_counter()
    trips = _search_all(LockStep(expander, demand, settings), len(demand), kind)
    routes = [trip.route for trip in trips if trip.route]
    about = (
        _about(folder, routes, settings)
        | performance(trips, perf_counter() - begun)
        | {
            "data_fingerprint": city.meta.fingerprint,
            "trained_on": card.data_fingerprint,
            "teacher_digest": card.teacher_digest,
            "od": str(od_file.name) if od_file else od,
        }
    )
    write_generated(target, demand, routes, about)
    print(
        f"{target}: {len(routes)} trips, {about['reached']} reached their destination, "
        f"{about['expansions_mean']:.1f} expansions a trip, {about['throughput_traj_per_sec']:.1f} trips/s"
    )


def _search_all(searches: LockStep, count: int, kind: str) -> list[Trip]:
    shown = tqdm(total=count, desc=f"generate ({kind})", unit=" trips", leave=False, disable=None)
    trips = []
    with shown:
        for trip in searches.run(range(count)):
            trips.append(trip)
            shown.update()
    return sorted(trips, key=lambda trip: trip.index)


def performance(trips: list[Trip], seconds: float) -> dict[str, float]:
    """Seconds and rounds a trip (see Cost), under the research code's names; `seconds` is the time of them all."""
    total = np.array([trip.cost.seconds for trip in trips])
    forward = np.array([trip.cost.forward_seconds for trip in trips])
    count = np.array([trip.cost.forwards for trip in trips])
    figures = {f"total_time_{name}": getattr(total, name)() for name in ("mean", "std", "min", "max")}
    figures |= {"total_time_median": np.median(total), "total_time_p95": np.percentile(total, 95)}
    figures |= {f"forward_time_{name}": getattr(forward, name)() for name in ("mean", "std")}
    figures |= {f"forward_count_{name}": getattr(count, name)() for name in ("mean", "std")}
    figures["throughput_traj_per_sec"] = len(trips) / seconds
    return {name: float(value) for name, value in figures.items()}


def _about(folder: RunFolder, routes: list[Route], settings: SearchSettings) -> dict[str, Any]:
    return {
        "model_digest": digest_of(folder.best),
        "trips": len(routes),
        "reached": sum(route.reached for route in routes),
        "search": settings.kind,
        "max_expansions": settings.max_expansions,
        "beam_width": settings.beam_width,
        "seed": settings.seed,
        "expansions_mean": sum(route.expansions for route in routes) / len(routes),
        "version": __version__,
    }
