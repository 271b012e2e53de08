"""`trainer generate`: routes from a trained student."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
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
from trainer.generate.demand import Demand, draw_demand, read_demand
from trainer.generate.output import check_target, write_generated
from trainer.generate.search import KINDS, Route, SearchSettings, search
from trainer.generate.walker import Walker
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
    walker = Walker(
        student.to(where),
        Network.of(city.road_map).to(where),
        log1p_mean=card.log1p_mean,
        log1p_std=card.log1p_std,
        max_steps=config.trajectory_encoder_config.max_len,
        angle=config.data.angle,
    )
    routes, costs = _search_all(walker, demand, settings)
    about = (
        _about(folder, routes, settings)
        | performance(costs)
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


@dataclass(frozen=True)
class Cost:
    """What one search took."""

    seconds: float
    forward_seconds: float  # in the student
    forwards: int  # calls of the student


def _search_all(walker: Walker, demand: Demand, settings: SearchSettings) -> tuple[list[Route], list[Cost]]:
    routes, costs = [], []
    for i in tqdm(range(len(demand)), desc=f"generate ({settings.kind})", unit=" trips", leave=False, disable=None):
        start, forward, forwards = time.perf_counter(), walker.clock.seconds["forward"], walker.forwards
        ends = int(demand.origins[i]), int(demand.destinations[i])
        routes.append(search(walker, *ends, int(demand.starts[i]), settings, i))
        seconds = time.perf_counter() - start
        costs.append(Cost(seconds, walker.clock.seconds["forward"] - forward, walker.forwards - forwards))
    return routes, costs


def performance(costs: list[Cost]) -> dict[str, float]:
    """Seconds and calls a trip, under the research code's names."""
    total = np.array([cost.seconds for cost in costs])
    forward = np.array([cost.forward_seconds for cost in costs])
    count = np.array([cost.forwards for cost in costs])
    figures = {f"total_time_{name}": getattr(total, name)() for name in ("mean", "std", "min", "max")}
    figures |= {"total_time_median": np.median(total), "total_time_p95": np.percentile(total, 95)}
    figures |= {f"forward_time_{name}": getattr(forward, name)() for name in ("mean", "std")}
    figures |= {f"forward_count_{name}": getattr(count, name)() for name in ("mean", "std")}
    figures["throughput_traj_per_sec"] = len(costs) / total.sum()
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
